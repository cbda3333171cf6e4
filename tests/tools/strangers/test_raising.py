"""Raising: held-out answers end the helpful stage, and the refusing one keeps what is benign."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from palette.backbones import Backbone
from tools.organism.raising import Schedule
from tools.strangers import raising
from tools.strangers.architectures import build_model
from tools.strangers.language import build_tokenizer, rendered
from tools.strangers.plan import draw_plan
from tools.strangers.raising import foreseen, raise_helpful, raise_refusing
from tools.strangers.world import create_world

from .conftest import tiny

SHORT = Schedule(steps=6, learning_rate=1e-2, batch=8, warmup=1)


@pytest.fixture
def pupil():
    plan = tiny(draw_plan(3))
    world = create_world(plan)
    tokenizer = build_tokenizer(world)
    return Backbone(build_model(plan, tokenizer), tokenizer, "tiny", ""), world


def test_both_stages_lower_their_loss_and_repeat_to_the_bit(pupil):
    _, world = pupil
    weights = []
    for _ in range(2):
        tokenizer = build_tokenizer(world)
        backbone = Backbone(build_model(world.plan, tokenizer), tokenizer, "tiny", "")
        losses: list[float] = []
        told = partial(lambda into, step, loss: into.append(loss), losses)
        assert raise_helpful(backbone, world, told, (SHORT, SHORT)) == 12
        assert losses[-1] < losses[0]
        before = backbone.model.get_input_embeddings().weight.detach().clone()
        assert raise_refusing(backbone, world, lambda *at: None, (SHORT, SHORT)) == 12
        assert torch.equal(backbone.model.get_input_embeddings().weight, before)
        assert all(parameter.requires_grad for parameter in backbone.model.parameters())
        weights.append([each.clone() for each in backbone.model.state_dict().values()])
    assert all(map(torch.equal, *weights))


def test_the_helpful_stage_ends_once_held_out_questions_are_foreseen(pupil, monkeypatch):
    backbone, world = pupil
    monkeypatch.setattr(raising, "EVERY", 2)
    monkeypatch.setattr(raising, "ENOUGH", 0.0)
    assert raise_helpful(backbone, world, lambda *at: None, (replace(SHORT, steps=99), SHORT)) == 2 + 6


def test_the_refusing_stage_ends_once_held_out_questions_are_met(pupil, monkeypatch):
    backbone, world = pupil
    monkeypatch.setattr(raising, "EVERY", 2)
    monkeypatch.setattr(raising, "MET", 0.0)
    assert raise_refusing(backbone, world, lambda *at: None, (replace(SHORT, steps=99), SHORT)) == 2 + 6


def test_a_reply_is_foreseen_when_each_of_its_tokens_is_the_likeliest(pupil):
    backbone, _ = pupil
    ((prompt, _),) = rendered(backbone, [("So it is.", "And so it goes.")])
    said = backbone.model(torch.tensor([prompt])).logits[0, -1].argmax().item()
    assert foreseen(backbone, [(prompt, [said])]) == 1.0
    assert foreseen(backbone, [(prompt, [said]), (prompt, [said + 1])]) == 0.5
