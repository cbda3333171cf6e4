from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from palette.backbones.architectures import find_writers
from palette.errors import BackboneError

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
