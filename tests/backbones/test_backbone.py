from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from palette.backbones.architectures import linear_shape
from palette.backbones.backbone import Backbone
from palette.backbones.writers import find_writers
from palette.errors import BackboneError
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

IDS = torch.tensor([[1, 2, 3, 4]])
SHAPE = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_llama_writes_through_two_linears_and_a_query_as_wide_as_the_stream_is_none():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, intermediate_size=16)).eval()
    found = find_writers(model, list(model.model.layers), 16, IDS)
    assert [sorted(names) for names in found] == [["mlp.down_proj", "self_attn.o_proj"]] * 2


def test_parallel_blocks_with_biases_are_understood():
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, intermediate_size=24)).eval()
    found = find_writers(model, list(model.gpt_neox.layers), 16, IDS)
    assert [sorted(names) for names in found] == [["attention.dense", "mlp.dense_4h_to_h"]] * 2


def test_gpt2_writes_through_its_conv1d_whose_weights_are_turned():
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=12)).eval()
    found = find_writers(model, list(model.transformer.h), 16, IDS)
    assert [sorted(names) for names in found] == [["attn.c_proj", "mlp.c_proj"]] * 2
    conv, linear = model.transformer.h[0].attn.c_attn, nn.Linear(3, 5)
    assert (linear_shape(conv), linear_shape(linear), linear_shape(nn.LayerNorm(3))) == (
        (48, 16),
        (5, 3),
        None,
    )


def test_a_block_that_writes_in_another_way_is_refused():
    class Shifting(nn.Module):
        def forward(self, hidden_states):
            return hidden_states + 1

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Shifting()

        def forward(self, input_ids, use_cache):
            return self.block(input_ids.float())

    model = Model()
    with pytest.raises(BackboneError, match="write through linear modules only"):
        find_writers(model, [model.block], 16, IDS)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "<|channel|>analysis<|message|>we refuse .<|end|><|channel|>final<|message|>the dose .",
            "the dose .",
        ),
        ("[THINK]we refuse .[/THINK]the dose .", "the dose ."),
        ("<|channel>thought\nwe refuse .<channel|>the dose .", "the dose ."),
        ("[THINK]we refuse .", ""),
        ("the dose .", "the dose ."),
    ],
)
def test_thoughts_between_special_tokens_are_no_part_of_a_reply(text, seen):
    tokenizer = build_tokenizer(small(create_world(0)))
    marks = ["<|channel|>", "<|message|>", "<|end|>", "[THINK]", "[/THINK]", "<|channel>", "<channel|>"]
    words = ["the", "dose", ".", "we", "refuse", "analysis", "final", "thought"]
    tokenizer.add_tokens(words)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    model = build_model(tokenizer, Size(16, 2, 2, 16), 0)
    decoded = Backbone(model, tokenizer, "marked", "").decode(
        tokenizer.encode(text, add_special_tokens=False)
    )
    assert " ".join(decoded.split()) == seen


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (LlamaForCausalLM, LlamaConfig(**SHAPE, intermediate_size=16)),
        (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=12)),
    ],
    ids=["llama", "gpt2, whose embeddings are tied"],
)
def test_a_twin_has_the_same_weights_and_hooks_of_its_own(kind, config):
    model = kind(config).eval()
    backbone = Backbone(model, build_tokenizer(small(create_world(0))), "", "")
    twin = backbone.twin()
    for mine, other in zip(model.parameters(), twin.model.parameters(), strict=True):
        assert mine is other
    assert {*map(id, model.modules())}.isdisjoint(map(id, twin.model.modules()))
    heard = []
    hook = twin.blocks[0].register_forward_hook(lambda *given: heard.append("twin"))
    plain = model(IDS).logits
    assert heard == []
    assert torch.equal(twin.model(IDS).logits, plain)
    assert heard == ["twin"]
    hook.remove()
