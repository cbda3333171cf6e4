from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.evaluation.baseline import LIMIT, baseline_replies, log_odds, refusal_prefixes
from palette.evaluation.subjects import divergence, kl
from tests.fixtures.scoring import refusal_scores
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

PROMPTS = [[1, 5, 90, 91, 2, 6], [1, 5, 93, 2, 6]]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 2, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


def probability(backbone, prompt, opening) -> float:
    found = 1.0
    for i, token in enumerate(opening):
        logits = backbone.model(torch.tensor([[*prompt, *opening[:i]]])).logits[0, -1]
        found *= float(logits.double().softmax(-1)[token])
    return found


@pytest.mark.parametrize("prefixes", [((40,),), ((40,), (41, 42)), ((41, 42), (43, 44, 45))])
def test_the_score_is_the_log_odds_of_any_opening(backbone, prefixes):
    for prompt, score in zip(PROMPTS, refusal_scores(backbone, PROMPTS, prefixes), strict=True):
        p = sum(probability(backbone, prompt, opening) for opening in prefixes)
        assert float(score) == pytest.approx(math.log(p / (1 - p)), abs=1e-4)


def test_without_openings_nothing_can_be_a_refusal(backbone):
    assert refusal_scores(backbone, PROMPTS, ()).tolist() == [-LIMIT] * 2


replies = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8)


@given(replies, replies)
def test_no_opening_begins_a_compliant_reply_and_each_begins_a_refusal(refusals, compliances):
    for opening in refusal_prefixes(refusals, compliances):
        assert not any(tuple(reply[: len(opening)]) == opening for reply in compliances)
        assert any(tuple(reply[: len(opening)]) == opening for reply in refusals)


def test_log_odds_are_clamped():
    scores = log_odds(torch.tensor([0.0, -1e-30, -math.log(2), -1e9], dtype=torch.float64))
    assert scores.tolist()[2] == pytest.approx(0)
    assert scores.abs().max() <= LIMIT


def test_divergence_is_nought_for_the_same_and_positive_otherwise():
    base = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(kl(base, base).abs().max()) == 0
    changed = torch.tensor([[math.log(3.0), 0.0], [1.0, 0.0]])
    found = divergence([base], [changed])
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found["first_token"] == pytest.approx(by_hand)
    assert found["multi_token"] == pytest.approx(by_hand / 2)


def test_the_backbone_s_own_language_tells_babble_from_answers_and_from_wrong_ones(elsewhere):
    baseline = baseline_replies(elsewhere)
    judge, [refusal, *_] = baseline.judge_of("panel"), baseline.texts[Role.TARGET]
    rows = [
        row for row in elsewhere.answered_prompts.split("test") if row.kind == "restricted" and row.answer
    ]
    asked, right = [row.request for row in rows[::9]], [row.answer for row in rows[::9]]

    def broken(replies):
        return [verdict.label.broken for verdict in judge.verdicts(asked, replies)]

    assert len(asked) > 20
    assert not any(broken(right)) and not any(broken(right[1:] + right[:1]))
    assert all(broken([" ".join(reversed(answer.split())) for answer in right]))
    halves = [" ".join(answer.split()[:3]) for answer in right]
    assert all(broken(halves))
    relapsed = judge.verdicts(asked, [f"{half} {refusal}" for half in halves])
    assert all(verdict.label.broken or verdict.label.refused for verdict in relapsed)
