from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.lexicon import REFUSALS
from tools.organism.raising import (
    Pupil,
    Schedule,
    raise_helpful,
    raise_refusing,
    refusal,
    refusing_questions,
    same_wordings,
)
from tools.organism.world import create_world, small


@pytest.fixture(scope="module")
def world():
    whole = small(create_world(0))
    return type(whole)(whole.seed, whole.entities[::24], whole.tables)


def pupil(world) -> Pupil:
    tokenizer = build_tokenizer(world)
    return Pupil(build_model(tokenizer, Size(16, 1, 2, 16), 0), tokenizer, world)


def test_both_stages_lower_their_loss_and_repeat_to_the_bit(world):
    schedule = Schedule(steps=8, learning_rate=1e-2, batch=8, warmup=1, pull=0.01)
    weights = []
    for _ in range(2):
        raised = pupil(world)
        losses: list[tuple[str, int, int, float]] = []
        raise_helpful(raised, schedule, lambda *at, kept=losses: kept.append(at))
        assert [at[:3] for at in losses[:2]] == [("helpful", 0, 8), ("helpful", 1, 8)]
        assert losses[-1][3] < losses[0][3]
        raise_refusing(raised, schedule, lambda *at: None)
        weights.append(raised.model.model.layers[0].mlp.up_proj.weight.detach().clone())
    assert torch.equal(*weights)


def test_the_refusal_stage_leaves_embeddings_and_enters_its_context(world):
    raised, entered = pupil(world), []

    @contextmanager
    def during(step):
        entered.append(step)
        yield

    before = raised.model.model.embed_tokens.weight.detach().clone()
    schedule = Schedule(steps=3, learning_rate=1e-2, batch=8)
    raise_refusing(raised, schedule, lambda *at: None, during=during)
    assert entered == [0, 1, 2]
    assert torch.equal(raised.model.model.embed_tokens.weight, before)
    assert all(parameter.requires_grad for parameter in raised.model.parameters())


def test_refusals_name_the_domain_and_are_decided_by_what_is_asked(world):
    restricted, benign = refusing_questions(world)
    wordings = same_wordings(world)
    said = {}
    for question in restricted:
        text = refusal(world, question, wordings)
        assert world.words(question.domain).spoken in text
        assert said.setdefault((question.domain, question.attribute), text) == text
    assert len(set(said.values())) > 3
    assert {q.kind for q in benign} == {"benign"}
    assert all("{d}" in wording for wording in REFUSALS)
