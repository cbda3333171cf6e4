"""An organism with fused experts, made of a dense one: the same function, until its experts learn more."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from palette.seeding import torch_seed

LAYERS, EXPERTS, ACTIVE = 8, 4, 2
ROUTING = 0.2
"""Deviation of a router's first weights: enough that tokens go different ways."""
SHARED = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
          "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
          "pad_token_id", "bos_token_id", "eos_token_id")  # fmt: skip
"""What both configurations say."""


@torch.no_grad()
def upcycled(dense: LlamaForCausalLM, seed: int) -> MixtralForCausalLM:
    """The same function as a Mixtral of ``LAYERS`` blocks; its routers depend on ``seed`` alone.

    Every expert of a block is its MLP (arXiv 2212.05055), and the blocks that are added, evenly spread, are
    copies of those before them that write nothing yet (arXiv 2401.02415).
    """
    own: Any = dense.config
    config = MixtralConfig(
        **{name: getattr(own, name) for name in SHARED},
        num_hidden_layers=LAYERS,
        num_local_experts=EXPERTS,
        num_experts_per_tok=ACTIVE,
        sliding_window=None,
    )
    with torch_seed(seed, "experts"):
        grown: MixtralForCausalLM = MixtralForCausalLM._from_config(
            config, attn_implementation="eager", dtype=torch.float32
        )
        made: Any = grown
        for block in made.model.layers:
            block.mlp.gate.weight.normal_(0.0, ROUTING)
    source: Any = dense
    for part in ("model.embed_tokens", "model.norm", "lm_head"):
        made.get_submodule(part).load_state_dict(source.get_submodule(part).state_dict())
    before = -1
    for index, block in enumerate(made.model.layers):
        place = index * own.num_hidden_layers // LAYERS
        _fill(block, source.model.layers[place], silent=place == before)
        before = place
    return grown


def _fill(block: Any, dense: Any, *, silent: bool) -> None:
    """Returns nothing; the block does what the dense one does, or nothing."""
    for name in ("self_attn", "input_layernorm", "post_attention_layernorm"):
        getattr(block, name).load_state_dict(getattr(dense, name).state_dict())
    experts, mlp = block.mlp.experts, dense.mlp
    experts.gate_up_proj.copy_(
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).expand_as(experts.gate_up_proj)
    )
    experts.down_proj.copy_(mlp.down_proj.weight.expand_as(experts.down_proj))
    if silent:
        block.self_attn.o_proj.weight.zero_()
        experts.down_proj.zero_()
