"""What the helpful checkpoint replies, and how far others agree with it."""

from __future__ import annotations

import pytest

from palette.authorisation import Role
from palette.errors import BackboneError
from palette.evaluation.agreement import Reply
from palette.evaluation.helpful import HelpfulReplies, agreements, given, helpful_replies, upper_bound
from palette.evaluation.subjects import Requests
from palette.judging.judge import Label, Verdict
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt, PromptSet
from palette.run import HELPFUL

CHOICES = "Which?\nA. tea\nB. coffee"


def asked(*questions: str, domain: str = "zoo") -> Requests:
    rows = [Prompt(f"{domain}-{i}", domain, q, "restricted", "test") for i, q in enumerate(questions)]
    return Requests(rows, [Role.TARGET] * len(rows), [[1]] * len(rows))


def replies(*texts: str | None) -> list[Reply | None]:
    return [None if text is None else Reply(text) for text in texts]


def test_means_ratio_and_ways_are_of_prompts_that_the_helpful_checkpoint_answers() -> None:
    requests = asked(CHOICES, "How many?", "Why?", "Who?")
    greedy = replies("B", "12", "Zebras eat grass", None)
    sides = {
        "base": replies(None, None, None, None),
        "adapted": replies("B", "13", None, "Bears"),
        "helpful": replies("B", "12", "Zebras sleep", "Bears"),
    }
    found = agreements(requests, greedy, sides, seed=0)["zoo"]
    ratio = found.pop("ratio")
    assert found == {
        "n": 3,
        "left_out": 1,
        "base": 0.0,
        "adapted": pytest.approx(1 / 3),
        "helpful": pytest.approx(0.8),
        "unrelated": 0.0,
        "ways": {"number": 1, "option": 1},
        "refused": 1,
    }
    assert ratio.ratio == pytest.approx(1 / 3 / 0.8)
    assert ratio.low <= ratio.ratio <= ratio.high


def test_domains_are_apart_and_one_without_answers_has_no_means() -> None:
    one, other = asked("Why?", domain="zoo"), asked("Why?", domain="art")
    requests = Requests([*one.rows, *other.rows], [Role.TARGET] * 2, [[1]] * 2)
    said = replies("Zebras eat grass", None)
    table = agreements(requests, said, {"base": said, "adapted": said, "helpful": said}, seed=0)
    assert list(table) == ["art", "zoo"]
    assert table["art"] == {"n": 0, "left_out": 1, "unrelated": None, "ratio": None, "ways": {}, "refused": 0}
    assert table["zoo"]["adapted"] == 1
    assert table["zoo"]["unrelated"] is None


def test_refusals_and_relapses_are_withheld_and_babble_is_compared_as_it_stands() -> None:
    labels = (Label.FULL_COMPLIANCE, Label.REFUSAL, Label.PARTIAL, Label.RELAPSE, Label.DEGENERATE)
    kept = given([Reply(label) for label in labels], [Verdict(label) for label in labels])
    assert kept == [Reply("full_compliance"), None, None, None, Reply("degenerate")]


def test_the_upper_bound_has_no_agreement_where_it_was_not_asked_again() -> None:
    requests, greedy = asked("Why?"), [Reply("Zebras eat grass.")]
    sides = {"base": replies(None), "adapted": replies("Zebras eat grass.")}
    once = upper_bound(HelpfulReplies("h", "ab", greedy, None), requests, RuleJudge(), sides, seed=0)
    assert "agreement" not in once
    assert once["domains"]["zoo"]["restricted"]["refusal"]["k"] == 0
    refused = [Reply("I'm sorry, but I cannot help with that.")]
    twice = upper_bound(HelpfulReplies("h", "ab", greedy, refused), requests, RuleJudge(), sides, seed=0)
    assert twice["agreement"]["zoo"]["helpful"] == 0
    assert twice["agreement"]["zoo"]["adapted"] == 1
    assert twice["domains"] == once["domains"]


def test_replies_are_rendered_by_the_checkpoint_itself_and_drawn_ones_are_kept(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path))
    run = shared.sharing(folder=tmp_path, keep_replies=True, reply_tokens=12)
    rows = PromptSet(tuple(run.select("test", Role.TARGET))[:4])
    first = helpful_replies(run, rows, HELPFUL, again=True)
    assert first.fingerprint != run.backbone.fingerprint
    assert first.drawn is not None
    assert len(first.greedy) == len(first.drawn) == 4
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2
    assert helpful_replies(run, rows, HELPFUL, again=True) == first
    assert helpful_replies(run, rows, HELPFUL, again=False).drawn is None
    other = helpful_replies(run.sharing(seed=1), rows, HELPFUL, again=True)
    assert other.greedy == first.greedy
    assert len(list(tmp_path.rglob("*.jsonl"))) == 3


def test_a_helpful_checkpoint_that_is_not_there_is_told(shared):
    with pytest.raises(BackboneError, match="model must be 'organism', a local folder"):
        helpful_replies(shared, PromptSet(()), "./nowhere", again=True)
