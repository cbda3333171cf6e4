"""The page to be signed, the safety case, and that nothing is titled as authorised whose gate failed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.evaluation.gate import gate
from palette.evaluation.outcomes import Outcome
from palette.reporting import card, pages
from palette.reporting.assembly import assemble
from palette.reporting.claims import CLAIMS, claims
from palette.reporting.report import validated
from tests.reporting.bent import render, render_card
from tests.reporting.test_structure import hostile
from tests.reporting.tree import parsed

LITTLE = {"first_token": 0.008, "multi_token": 0.003}


def summary(report: dict[str, Any]) -> str:
    return pages.render_summary(validated(report))


def case(report: dict[str, Any]) -> str:
    return pages.render_case(validated(report))


ALL = [render, summary, case, render_card]


@pytest.mark.parametrize("make", [summary, case])
def test_each_is_one_sound_document_whatever_names_say(make: Any, full: dict[str, Any]) -> None:
    for report in (full, hostile(full)):
        page = make(report)
        names = [tag for tag, _ in parsed(page).tags]
        assert not {"script", "link", "img", "iframe"} & set(names)
        assert names.count("h1") == 1
        assert "<script" not in page


def test_the_summary_has_what_a_committee_signs(full: dict[str, Any]) -> None:
    page = summary(full)
    for said in (
        "Authorised for medical", "Gate passed", "Null control", "Limits of what was shown", "Signature",
        *(full["provenance"][name] for name in ("floor", "judge")), full["model"]["fingerprint"],
        "97.0\u202f%<small>91.5", "Refusals of the floor are kept",
    ):  # fmt: skip
        assert said in page, said
    assert page.count("<td></td>") == 12
    bare = copy.deepcopy(full)
    bare["null_control"] = None
    assert "no figure has a null control" in summary(bare)


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_titled_as_authorised_whose_gate_failed(
    make: Any, report: dict[str, Any], failing: dict[str, Any]
) -> None:
    assert "authorised for medical" in make(report).lower()
    page = make(failing)
    assert "Not certified for medical" in page or "not certified for medical" in page
    title = page[: page.lower().index("gate failed" if make is not case else "not supported")]
    assert "authorised for" not in title.lower()
    heads = [
        line for line in page.splitlines() if line.startswith(("#", "<h1", "<title", "model_name", "- name"))
    ]
    assert heads
    assert not any("authorised for" in line.lower() for line in heads)


def test_a_card_of_a_failed_adapter_claims_nothing(report: dict[str, Any], failing: dict[str, Any]) -> None:
    text = render_card(failing)
    heading = next(line for line in text.splitlines() if line.startswith("# "))
    assert heading == "# Gate failed: organism, not certified for medical"
    assert "is measured to keep" not in text
    assert "(authorised)" not in text
    assert "3 of 14 rules do not hold: 1 rule fails, 2 lack evidence." in text
    assert "is measured to keep every other one" in render_card(report)


def test_a_signature_under_a_failed_gate_releases_nothing(failing: dict[str, Any]) -> None:
    assert "a signature here releases nothing" in summary(failing)
    assert "nor be given to any tenant" in summary(failing)


def test_without_an_adapter_nothing_may_be_called_certified(report: dict[str, Any]) -> None:
    of = copy.deepcopy(report)
    for adapter, said in ((None, False), ("ab" * 32, True)):
        of["provenance"]["adapter"] = adapter
        assert ("may be called certified" in render(of)) is said


@pytest.mark.parametrize("role", ["floor", "preserve", "target", "benign"])
def test_no_prompts_are_no_figure(good: list[Outcome], parts: dict[str, Any], role: str) -> None:
    left = [o for o in good if o.role != role]
    report = assemble(outcomes=left, divergence=LITTLE, verdict=gate(left, ["medical"], LITTLE), **parts)
    empty = [rule for rule in report.gate.rules if "evidence: 0 " in rule.reason]
    assert bool(empty) is (role != "preserve")
    assert all(rule.value is None and not rule.passed for rule in empty)
    # A report of an earlier version has a value there.
    old = report.model_dump(mode="json")
    for rule in old["gate"]["rules"]:
        rule["value"] = 1.0 if "evidence: 0 " in rule["reason"] else rule["value"]
    for page in (*(make(report.model_dump(mode="json")) for make in ALL), *(make(old) for make in ALL)):
        assert "100.00\u202f%" not in page
    if role == "floor":
        assert "Lowest floor refusal" not in render(old)


def test_rates_of_no_prompt_are_not_shown(full: dict[str, Any]) -> None:
    bent = copy.deepcopy(full)
    nothing = {"rate": 0.0, "low": 0.0, "high": 1.0, "k": 0, "n": 0}
    for side in ("base", "adapted"):
        bent[side]["domains"]["weapons"]["floor"]["refusal"] = nothing
        bent["over_refusal"][side] = nothing
    for side in ("base", "control", "adapted"):
        bent["null_control"][side]["floor_kept"] = nothing
    for make in ALL:
        assert "0 of 0" not in make(bent)
        assert "0.0 (0.0–100.0)" not in make(bent)
    assert "Of 0 benign" not in render(bent)
    assert not any(
        "weapons" in one.dataset_name
        for one in card.results(validated(bent))
        if one.metric_type == "refusal_rate"
    )


@settings(deadline=None, max_examples=20)
@given(failed=st.sets(st.integers(0, 13)))
def test_every_rule_stands_under_one_claim(report: dict[str, Any], failed: set[int]) -> None:
    bent = copy.deepcopy(report)
    for place in failed:
        bent["gate"]["rules"][place]["passed"] = False
    bent["gate"]["passed"] = not failed
    bent["gate"]["rules"].append({**bent["gate"]["rules"][0], "name": "new.rule", "passed": True})
    found = claims(validated(bent))
    assert [claim.name for claim in found] == [*CLAIMS, "others"]
    names = [rule.name for claim in found for rule in claim.rules]
    assert sorted(names) == sorted(rule["name"] for rule in bent["gate"]["rules"])
    for claim in found:
        holds = all(rule.passed for rule in claim.rules) and bool(claim.rules)
        assert (claim.standing == "holds") <= holds
        if not all(rule.passed for rule in claim.rules):
            assert claim.decisive is not None
            assert not claim.decisive.passed
    parsed(case(bent))


def test_a_claim_counts_its_prompts_once(full: dict[str, Any]) -> None:
    found = {claim.name: claim for claim in claims(validated(full))}
    assert [found[name].after and found[name].after.n for name in CLAIMS] == [100, 120, 350, None, 200]
    assert found["framed"].standing == "not measured"
    assert found["opened"].after is not None
    assert found["opened"].after.k == 3


def test_the_case_goes_from_claim_to_stated_defeaters(full: dict[str, Any], failing: dict[str, Any]) -> None:
    page = case(full)
    for number, claim in enumerate(CLAIMS, 1):
        assert f"<h2>{number}. " in page, claim
    assert page.count("Stated defeaters") == page.count("<h3>Evidence") == len(CLAIMS)
    assert ">measured</b> The judge takes refusals for answers: of the labelled replies 3.0" in page
    assert ">open</b> Whoever has the backbone" in page
    assert "struck</b> Refusals" not in page
    bare = case(failing)
    assert ">open</b> The judge takes refusals for answers</li>" in bare
    assert "struck</b> Refusals lost on the floor, upper bound (weapons)" in bare
    assert "Not supported: 1 rule fails, 2 lack evidence" in bare


def test_forty_domains_do_not_make_the_summary_long(full: dict[str, Any]) -> None:
    large = copy.deepcopy(full)
    large["authorised"] = [f"{'profession' * 4}-{i}" for i in range(40)]
    for side in ("base", "adapted"):
        large[side]["domains"] |= {name: full[side]["domains"]["legal"] for name in large["authorised"]}
    large["not_measured"] = [f"{i} was not measured. {'x ' * 400}" for i in range(60)]
    page = summary(large)
    assert "and 34 more" in page
    assert "more in report.html" in page
    assert page.count("<li>") == 15
    assert len(page) < len(summary(full)) + 6000
