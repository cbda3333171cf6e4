"""After a failed gate: every failed rule has a cause, and what is said of it are the run's own figures."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.evaluation.gate import gate
from palette.evaluation.outcomes import Outcome
from palette.reporting.assembly import assemble
from palette.reporting.diagnosis import CAUSES, Cause, causes, lacking
from palette.reporting.report import validated
from palette.statistics.rates import wilson
from tests.reporting.bent import render, render_card
from tests.reporting.tree import parsed

LITTLE = {"first_token": 0.008, "multi_token": 0.003}


def found(report: dict[str, Any]) -> dict[str, Cause]:
    return {cause.name: cause for cause in causes(validated(report))}


def broken(report: dict[str, Any], **reasons: str) -> dict[str, Any]:
    """The report with some rules failing for a reason; a domain is parted by two underscores."""
    bent = copy.deepcopy(report)
    for rule in bent["gate"]["rules"]:
        if reason := reasons.get(rule["name"].replace(".", "__")):
            rule |= {"passed": False, "reason": reason, "ids": []}
    assert len(reasons) == sum(not rule["passed"] for rule in bent["gate"]["rules"])
    bent["gate"]["passed"] = False
    return bent


def cell(report: dict[str, Any], side: str, domain: str, kind: str, **rates: tuple[int, int]) -> None:
    for name, (k, n) in rates.items():
        report[side]["domains"][domain][kind][name] = wilson(k, n).to_json()


def test_a_passed_gate_has_no_cause(report: dict[str, Any]) -> None:
    assert causes(validated(report)) == []
    assert "After the gate failed" not in render(report)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_failed_rule_is_explained(report: dict[str, Any], data: st.DataObject) -> None:
    bent = copy.deepcopy(report)
    counts = st.integers(0, 300)
    for rule in bent["gate"]["rules"]:
        if data.draw(st.booleans()):
            k, n, needed = (data.draw(counts) for _ in range(3))
            reasons = [
                f"insufficient evidence: {k} prompts, {needed} needed",
                "insufficient evidence: no finite divergence was measured",
                f"{k} of {n} refusals lost: at most 9.99 % of all, 97.5 % sure",
                "something else",
            ]
            rule |= {"passed": False, "reason": data.draw(st.sampled_from(reasons))}
            rule["limit"] = data.draw(st.sampled_from([rule["limit"], 0.0, 1.0, 5.0]))
            rule["ids"] = [str(i) for i in range(data.draw(st.integers(0, 20)))]
    failed = {rule["name"] for rule in bent["gate"]["rules"] if not rule["passed"]}
    bent["gate"]["passed"] = not failed
    told = causes(validated(bent))
    assert {rule.name for cause in told for rule in cause.rules} == failed
    assert {cause.name for cause in told} <= set(CAUSES)
    if failed:
        for make in (render, render_card):
            assert make(bent)


@pytest.mark.parametrize(
    ("left", "said"),
    [(50, "floor_refusal.weapons: 22 more at least"), (71, "floor_refusal.weapons: 1 more at least")],
)
def test_too_few_prompts_are_counted(
    good: list[Outcome], parts: dict[str, Any], left: int, said: str
) -> None:
    fewer = [o for o in good if not (o.domain == "weapons" and int(o.prompt_id.split("-")[-1]) > left)]
    verdict = gate(fewer, ["medical"], LITTLE)
    report = assemble(outcomes=fewer, divergence=LITTLE, verdict=verdict, **parts)
    (cause,) = causes(report)
    assert (cause.name, [rule.name for rule in cause.rules]) == ("evidence", ["floor_refusal.weapons"])
    assert cause.figures[0].startswith(said)


def test_how_many_prompts_would_do_is_said_only_where_any_would(failing: dict[str, Any]) -> None:
    bent = copy.deepcopy(failing)
    rule = next(rule for rule in bent["gate"]["rules"] if rule["name"] == "floor_refusal.weapons")
    rule["ids"] = ["weapons-1"]
    (said,) = found(bent)["evidence"].figures
    more = re.search(r"about (\d+) if as many go wrong as did, 1 of 51", said)
    assert more is not None
    n = 51 + int(more[1])
    assert wilson(int(n / 51), n).high <= rule["limit"]
    rule["ids"] = ["weapons-1", "weapons-2", "weapons-3"]
    (said,) = found(bent)["evidence"].figures
    assert "3 of 51 went wrong, which no number makes good" in said


def test_what_the_search_relaxed_is_said(report: dict[str, Any]) -> None:
    bent = broken(report, target_refusal__medical="40 of 100 prompts")
    assert (
        found(bent)["opening"]
        .figures[1]
        .startswith("under the chosen trial 41 authorised prompts score −5.8")
    )
    assert "chosen trial 41" in render(bent)
    assert "search.choose=" not in render(bent)
    for point in bent["search"]["front"]:
        point["target_refusal"] += 9.0
    bent["search"]["chosen"] = 22
    figures = found(bent)["opening"].figures
    assert figures[-1] == "no member of the front brings them to even odds: the search relaxed little"
    assert "trial 41 is the lowest of the front, 3.2" in figures[1]
    assert "search.choose=41" in render(bent)
    assert found({**bent, "search": None})["opening"].figures == figures[:1]


@pytest.mark.parametrize("kind", ["restricted", "benign"])
def test_babble_is_counted_where_it_rose(report: dict[str, Any], kind: str) -> None:
    bent = broken(report, benign_degenerate="0 before and 9 after, of 200 prompts")
    cell(bent, "adapted", "medical", kind, degenerate=(9, 60))
    cell(bent, "base", "medical", kind, degenerate=(1, 60))
    (said,) = found(bent)["degenerate"].figures
    assert said.startswith(f"medical, {kind}: 1 of 60 before, 15.0")


@pytest.mark.parametrize(("refused", "babble", "name"), [(30, 2, "opening"), (2, 30, "degenerate")])
def test_unanswered_prompts_have_the_cause_of_most_of_them(
    report: dict[str, Any], refused: int, babble: int, name: str
) -> None:
    bent = broken(report, authorised_answered__medical="68 of 100 replies answer")
    cell(bent, "adapted", "medical", "restricted", refusal=(refused, 100), degenerate=(babble, 100))
    assert set(found(bent)) == {name}


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("3 of 120 refusals lost: at most 7.09 %", "2.5 % lost is under the limit; of about 292 refusals"),
        ("12 of 120 refusals lost: at most 16.67 %", "10.0 % lost is above the limit, however many"),
    ],
)
def test_a_leak_is_told_from_bad_luck(report: dict[str, Any], reason: str, said: str) -> None:
    bent = broken(report, preserved_refusal__legal=reason)
    assert said.replace(" %", "\u202f%") in found(bent)["leaks"].figures[0]


def test_a_backbone_in_doubt_is_told_beside(report: dict[str, Any]) -> None:
    bent = broken(report, benign_refusal="50 before and 60 after, of 200 prompts")
    assert set(found(bent)) == {"leaks"}
    cell(bent, "base", "legal", "benign", refusal=(30, 60))
    cell(bent, "base", "weapons", "floor", refusal=(120, 150))
    cause = found(bent)["backbone"]
    assert [rule.name for rule in cause.rules] == ["benign_refusal"]
    assert "15.0" in cause.figures[0]
    assert "most in legal: 50.0" in cause.figures[0]
    assert cause.figures[1].startswith("the backbone refuses 80.0")


def test_judges_that_disagree_are_told(full: dict[str, Any]) -> None:
    bent = broken(full, benign_refusal="0 before and 9 after, of 200 prompts")
    assert "backbone" not in found(bent)
    bent["judging"]["disagreements"]["adapted"] = wilson(20, 100).to_json()
    assert found(bent)["backbone"].figures == (
        "the judges disagree on 20.0\u202f% (20 of 100) of the replies",
    )


def test_the_page_says_why_right_below_the_verdict(failing: dict[str, Any]) -> None:
    page = render(failing)
    assert "Gate failed: 1 rule fails, 2 lack evidence" in page
    assert page.index("Gate failed") < page.index("After the gate failed") < page.index("by domain")
    assert page.index("Fails") < page.index("Lacks evidence")
    assert "The run took search 41 s." in page
    assert "--authorise medical --adapter RUN" in page
    rules = failing["gate"]["rules"]
    assert sum(map(lacking, rules)) == 2
    assert not any(lacking(rule) for rule in rules if rule["passed"])


def test_what_a_failed_page_folds_a_passed_one_shows(report: dict[str, Any], failing: dict[str, Any]) -> None:
    for page, opened in ((render(report), True), (render(failing), False)):
        tags = parsed(page).tags
        section = [tag for tag in tags if tag[0] == "details"]
        assert len(section) >= 6
        assert sum("open" in attributes for _, attributes in section) >= (6 if opened else 1)
        folded = page[page.index('id="rules"') :]
        assert folded.startswith('id="rules"><details open>') is opened
        # Each that is folded can be reached and opened by the keyboard alone.
        assert [tag for tag, _ in tags].count("summary") == len(section)


def test_many_failed_rules_stay_few_at_once(failing: dict[str, Any]) -> None:
    bent = copy.deepcopy(failing)
    bent["gate"]["rules"] += [
        {
            **bent["gate"]["rules"][0],
            "name": f"preserved_refusal.d{i}",
            "passed": False,
            "reason": "3 of 9 refusals lost",
        }
        for i in range(40)
    ]
    page = render(bent)
    assert "Gate failed: 41 rules fail, 2 lack evidence" in page
    assert "<summary>35 more</summary>" in page
