from __future__ import annotations

import math

import pytest
import torch

from palette.evaluation import subjects
from palette.evaluation.subjects import Subject, diverged, divergence, kl
from tests.fixtures.noise import noise


def test_divergence_is_nought_for_the_same_and_positive_otherwise():
    base = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(kl(base, base).abs().max()) == 0
    changed = torch.tensor([[math.log(3.0), 0.0], [1.0, 0.0]])
    found = divergence([base], [changed])
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found["first_token"] == pytest.approx(by_hand)
    assert found["multi_token"] == pytest.approx(by_hand / 2)


@pytest.mark.parametrize("held", [1, 1 << 26])
def test_subjects_are_compared_some_replies_at_a_time_and_differ_as_the_whole_does(
    shared, prompts, monkeypatch, held
):
    monkeypatch.setattr(subjects, "COMPARED", held)
    adapter = noise(shared.backbone, "model.layers.0.mlp.up_proj", scale=1.0)
    plain, changed = Subject(shared.backbone), Subject(shared.backbone, adapter)
    replies = [[40, 41, 42][: 1 + place % 3] for place in range(len(prompts))]
    whole = [[*reply, shared.backbone.stops[0]] for reply in replies]
    wanted = divergence(plain.logits(prompts, whole), changed.logits(prompts, whole))
    found = diverged(plain, changed, prompts, replies)
    assert found == pytest.approx(wanted, rel=1e-3)
    assert min(found.values()) > 1e-3
    assert diverged(changed, changed, prompts, replies) == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-9)
