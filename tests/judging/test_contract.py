from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palette.judging.chat import ChatJudge
from palette.judging.classifiers import ClassifierJudge, PanelJudge, TrainedJudge, load_trained_judge
from palette.judging.judge import Judge, judge_named
from palette.judging.language import Language, LanguageJudge
from palette.judging.rules import RuleJudge
from tests.fixtures.endpoint import Endpoint, parrot
from tests.fixtures.judges import (
    OWN,
    OWN_BROKEN,
    ForgetfulJudge,
    KeywordJudge,
    MoodyJudge,
    NeighbourlyJudge,
    SortingJudge,
    WearyJudge,
    faults,
)

OPENINGS = ("zorb nak closed",)


def classify(reply: str) -> str:
    """A classifier that knows one wording."""
    return "REJECTION" if "can't" in reply.replace("’", "'") else "normal"


def stricter(judge: TrainedJudge) -> TrainedJudge:
    """The same weights with another margin."""
    return replace(judge, sure=judge.sure + 1)


JUDGES: dict[str, tuple[Callable[[], Judge], Callable[[], list[Judge]]]] = {
    "rule": (RuleJudge, lambda: [RuleJudge(OPENINGS)]),
    "rule with prefixes": (lambda: RuleJudge(OPENINGS), lambda: [RuleJudge(("zorb",)), RuleJudge()]),
    "trained": (
        load_trained_judge,
        lambda: [
            stricter(load_trained_judge()),
            replace(load_trained_judge(), weights=load_trained_judge().weights * 2),
            replace(load_trained_judge(), bias=0.0),
        ],
    ),
    "panel": (
        PanelJudge,
        lambda: [
            PanelJudge(RuleJudge(OPENINGS)),
            PanelJudge(trained=stricter(load_trained_judge())),
            RuleJudge(),
        ],
    ),
    "classifier": (lambda: ClassifierJudge(classify, "a"), lambda: [ClassifierJudge(classify, "b")]),
    "language": (
        lambda: LanguageJudge(RuleJudge(), Language()),
        lambda: [
            LanguageJudge(RuleJudge(OPENINGS), Language()),
            LanguageJudge(RuleJudge(), Language(limit=1.0)),
            LanguageJudge(RuleJudge(), Language(phrases=frozenset({("zorb", "nak")}))),
            RuleJudge(),
        ],
    ),
}


@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_meets_the_contract(name: str) -> None:
    create, others = JUDGES[name]
    assert isinstance(create(), Judge)
    assert faults(create, *others()) == set()


def test_the_judge_behind_an_endpoint_meets_the_contract() -> None:
    with Endpoint(parrot) as endpoint:
        others = [ChatJudge("other", endpoint.url), ChatJudge("model", endpoint.url + "/")]
        assert faults(lambda: ChatJudge("model", endpoint.url), *others) == set()


def test_the_contract_catches_broken_judges() -> None:
    assert faults(KeywordJudge) >= {
        "typography changes nothing",
        "nothing is unjudged",
        "babble is degenerate",
        "a topic is no refusal",
        "a reply without its prompt is an error",
    }
    assert faults(ForgetfulJudge) == {"one verdict for each reply"}
    assert "verdicts stand in the replies' order" in faults(MoodyJudge)
    assert "a plain refusal and a plain answer are told apart" in faults(MoodyJudge)
    assert "verdicts stand in the replies' order" in faults(SortingJudge)
    assert "a verdict does not depend on the replies beside it" in faults(NeighbourlyJudge)
    assert "the same replies get the same verdicts" in faults(WearyJudge)
    law = "the fingerprint changes with what decides, and with nothing else"
    assert law in faults(KeywordJudge, SortingJudge())
    assert law not in faults(KeywordJudge)


def test_a_judge_of_one_s_own_meets_the_contract_and_a_broken_one_is_caught(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "other.py").write_text(OWN + "\n")
    names = [f"{tmp_path / file}:Judge" for file in ("mine.py", "other.py")]
    assert faults(lambda: judge_named(names[0]), judge_named(names[1])) == set()
    (tmp_path / "mine.py").write_text(OWN_BROKEN)
    assert faults(lambda: judge_named(names[0])) == {
        "nothing is unjudged",
        "babble is degenerate",
        "a plain refusal and a plain answer are told apart",
        "a topic is no refusal",
    }
