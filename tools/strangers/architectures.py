"""The bare models of strangers: stock classes of ``transformers``, as small as a plan says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
    StableLmConfig,
)

from palette.seeding import torch_seed
from tools.strangers.plan import Plan, Shape

EXPERTS, ACTIVE = 4, 2


def _grouped(shape: Shape) -> dict[str, Any]:
    return {"num_key_value_heads": shape.groups, "head_dim": shape.width // shape.heads}


def _sliding(shape: Shape, every: int) -> dict[str, Any]:
    """Layers that slide, each so many'th one whole."""
    types = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(shape.layers)]
    scale = {"query_pre_attn_scalar": shape.width // shape.heads}
    return {**_grouped(shape), **scale, "sliding_window": shape.window, "layer_types": types}


def _experts(shape: Shape, name: str, size: str) -> dict[str, Any]:
    return {**_grouped(shape), name: EXPERTS, "num_experts_per_tok": ACTIVE, size: shape.width}


CONFIGURATIONS: dict[str, tuple[type[PretrainedConfig], Callable[[Shape], dict[str, Any]]]] = {
    "llama": (LlamaConfig, _grouped),
    "qwen3": (Qwen3Config, _grouped),
    "gemma2": (Gemma2Config, lambda shape: _sliding(shape, 2)),
    "gemma3": (Gemma3TextConfig, lambda shape: _sliding(shape, 3)),
    "gpt_neox": (GPTNeoXConfig, lambda shape: {"intermediate_size": 4 * shape.width}),
    "olmo2": (Olmo2Config, lambda shape: {"num_key_value_heads": shape.groups}),
    "phi3": (Phi3Config, lambda shape: {"num_key_value_heads": shape.groups}),
    "stablelm": (StableLmConfig, lambda shape: {"num_key_value_heads": shape.groups, "use_qkv_bias": True}),
    "mistral": (MistralConfig, lambda shape: {**_grouped(shape), "sliding_window": shape.window}),
    "mixtral": (MixtralConfig, lambda shape: _experts(shape, "num_local_experts", "intermediate_size")),
    "qwen3_moe": (Qwen3MoeConfig, lambda shape: _experts(shape, "num_experts", "moe_intermediate_size")),
}
"""The class of each architecture, and what it is told beside what all are."""


def build_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained model of a plan; its first weights depend on the plan alone."""
    shape = plan.shape
    kind, more = CONFIGURATIONS[shape.architecture]
    stated = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 8 * shape.width // 3 // 16 * 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": shape.tied,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **more(shape),
    }
    with torch_seed(plan.root, "model"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            kind(**stated), attn_implementation="eager", dtype=torch.float32
        )
        return model
