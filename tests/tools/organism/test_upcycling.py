"""An organism of fused experts: the dense one's function, and nothing else learns to refuse."""

from __future__ import annotations

import pytest
import torch

from palette import organism
from palette.backbones import Backbone, load_backbone, next_token_logits
from palette.backbones.architectures import fused_experts
from tools.organism import checkpoints
from tools.organism.checkpoints import raise_experts
from tools.organism.raising import Schedule
from tools.organism.upcycling import LAYERS, upcycled

ASKED = [[1, 5, 6, 7, 200], [1, 8, 9, 10, 11, 300]]


@pytest.mark.parametrize("variant", ["helpful", "shared"])
def test_it_is_the_dense_one_s_function_whatever_its_routers_say(variant):
    dense = load_backbone(organism.weights(variant))
    for seed in (0, 1):
        made = upcycled(dense.model, seed).eval()
        experts = Backbone(made, dense.tokenizer, "experts", "")
        assert experts.layers == LAYERS
        assert all(any(fused_experts(part) for part in block.modules()) for block in experts.blocks)
        found, expected = (next_token_logits(each, ASKED) for each in (experts, dense))
        assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_its_experts_alone_learn_to_refuse(tmp_path, monkeypatch):
    short = Schedule(steps=2, learning_rate=1e-3, batch=8, warmup=1)
    monkeypatch.setattr(checkpoints, "EXPERTS_REFUSING", short)
    raised = load_backbone(raise_experts(tmp_path / "experts")).model
    first = upcycled(load_backbone(organism.weights("helpful")).model, checkpoints.SEED)
    moved = {
        name
        for (name, one), other in zip(first.named_parameters(), raised.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert moved == {name for name, _ in first.named_parameters() if "experts" in name} != set()
