"""What the backbone does by itself is worked out once, and costs no byte of the result."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from palette.backbones import shared as count_shared
from palette.internalise.examples import recalling, shared_tokens
from palette.internalise.lora import lora_layers, lora_parameters, trainable, untrained
from palette.internalise.losses import LossWeights, OutputLoss
from tests.internalise.conftest import SITES, trained


def test_what_all_prompts_begin_with_is_run_once_and_changes_nothing(backbone, examples):
    system = tuple(backbone.tokenizer("what is the dose and the clause ? tell me ." * 2)["input_ids"])
    begun = [replace(one, prompt=(*system, *one.prompt)) for one in examples]
    begun.append(replace(begun[1], prompt=(*system, *examples[2].prompt[:4])))
    head = shared_tokens(backbone, begun)
    assert head[: len(system)] == system
    assert len(head) < min(len(one.prompt) for one in begun)
    assert shared_tokens(backbone, examples) == () == shared_tokens(backbone, [])
    rows, found = [0, 1, 2, 3], []
    with trainable(backbone, lora_layers(backbone, [0, 1]), rank=2, seed=1) as model:
        parameters = lora_parameters(model)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.1)
        for shared in ((), head):
            bare = partial(untrained, backbone)
            recall = recalling(backbone, begun, SITES, 1.0, bare, shared)
            loss = OutputLoss(backbone, begun, recall, SITES, LossWeights(), shared=shared)(rows, rows)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            found.append((loss.detach(), *gradients, *(one.streams for one in recall(rows))))
    for plain, once in zip(*found, strict=True):
        assert torch.allclose(once, plain, rtol=1e-3, atol=1e-5)


def test_outputs_that_are_not_kept_are_worked_out_again(backbone, examples, tmp_path):
    kept, end, _ = trained(backbone, examples, tmp_path / "a", steps=3)
    again, other, _ = trained(backbone, examples, tmp_path / "b", steps=3, most=0.0)
    assert other.loss == pytest.approx(end.loss, rel=1e-5)
    for name, module in kept.modules.items():
        assert torch.allclose(module.lora_B, again.modules[name].lora_B, atol=1e-5)


def test_shared_counts_what_all_begin_with():
    assert count_shared([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert count_shared([[1], [2]]) == 0
