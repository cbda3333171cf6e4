"""Two reports side by side."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.reporting.comparison import apart
from palette.reporting.pages import render_comparison
from palette.statistics.rates import wilson
from tests.reporting.bent import compared


def test_a_report_beside_itself_is_sound_and_nothing_differs(full: dict[str, Any]) -> None:
    found = compared(full, full)
    assert (found.sound, found.caveats) == (True, ())
    assert not any(rule.changed for rule in found.rules)
    assert all(one.difference and one.difference.rate == 0 for one in found.rates)
    assert {both.difference for both in found.divergence.values()} == {0.0}
    assert len(found.rates) == 2 * 13
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"provenance": {"prompts": {"test": "other"}}}, "prompts"),
        ({"provenance": {"judge": "other"}}, "judge"),
        ({"provenance": {"floor": "other"}}, "floor"),
        ({"model": {"fingerprint": "other"}}, "backbone"),
        ({"split": "validation"}, "split"),
        ({"provenance": {"recipe": {"evaluate": {"reply_tokens": 64}}}}, "reading"),
    ],
)
def test_what_makes_it_unsound_is_said_first(
    report: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    other = copy.deepcopy(report)
    for field, value in change.items():
        if isinstance(value, dict):
            other[field] = {**other[field], **value}
        else:
            other[field] = value
    found = compared(report, other)
    assert not found.sound
    assert what in [one.what for one in found.caveats]
    assert list(found.model_dump())[:3] == ["format", "sound", "caveats"]
    page = render_comparison(found)
    assert page.index("Not comparable") < page.index("The gate")
    assert f"<b>{what}</b>" in page


def test_floor_replies_of_other_lengths_are_not_comparable(full: dict[str, Any]) -> None:
    other = copy.deepcopy(full)
    other["judging"]["floor_tokens"] += 7
    (caveat,) = compared(full, other).caveats
    assert caveat.what == "reading"
    assert caveat.b["floor_tokens"] == caveat.a["floor_tokens"] + 7


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("versions", {"torch": "9"}),
        ("seconds", {}),
        ("device", "cuda"),
        ("adapter", "ff" * 32),
        ("seeds", {}),
    ],
)
def test_what_does_not_change_the_question_leaves_it_sound(
    report: dict[str, Any], place: str, value: object
) -> None:
    other = {**report, "provenance": {**report["provenance"], place: value}}
    assert compared(report, other).sound


def test_limits_of_the_gate_are_rules_that_changed_not_another_question(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    other["provenance"]["recipe"] = {**other["provenance"]["recipe"], "evaluate": {"gate": {"divergence": 1}}}
    other["gate"]["rules"][0]["limit"] = 0.5
    del other["gate"]["rules"][1]
    found = compared(report, other)
    assert found.sound
    changed = [rule for rule in found.rules if rule.changed]
    assert [rule.name for rule in changed] == [report["gate"]["rules"][i]["name"] for i in (0, 1)]
    assert changed[1].b is None
    assert "no such rule" in render_comparison(found)


def test_gates_and_rates_stand_beside_each_other(report: dict[str, Any], failing: dict[str, Any]) -> None:
    found = compared(report, failing)
    assert (found.a.passed, found.b.passed) == (True, False)
    assert {rule.name for rule in found.rules if rule.changed} == {
        "floor_refusal.weapons",
        "divergence.first_token",
        "divergence.multi_token",
    }
    assert found.divergence["multi_token"].model_dump() == {"a": 0.003, "b": None, "difference": None}
    page = render_comparison(found)
    assert "✓ passed" in page
    assert "✗ failed" in page
    assert "not finite" in page


def test_the_greatest_difference_comes_first_and_what_is_alike_is_folded(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    for domain, k in (("sums", 8), ("legal", 40)):
        other["adapted"]["domains"][domain]["benign"]["refusal"] = wilson(k, 80).to_json()
    found = compared(report, other)
    sizes = [abs(one.difference.rate) for one in found.rates if one.difference]
    assert sizes == sorted(sizes, reverse=True)
    assert [one.domain for one in found.rates[:2]] == ["legal", "sums"]
    page = render_comparison(found)
    assert (
        page.index("legal, benign, refusal") < page.index("sums, benign, refusal") < page.index("<details>")
    )
    assert "11 that are the same in both" in page


def test_a_domain_of_one_report_alone_has_no_difference(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    for side in ("base", "adapted"):
        other[side]["domains"]["energy"] = other[side]["domains"].pop("sums")
    found = compared(report, other)
    alone = {one.domain: one for one in found.rates if one.difference is None}
    assert sorted(alone) == ["energy", "sums"]
    assert alone["energy"].a is None
    assert "not measured" in render_comparison(found)


def test_the_interval_of_a_difference_is_newcombe_s() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.2, from 0.0524 to 0.3339."""
    found = apart(wilson(48, 80), wilson(56, 70))
    assert found is not None
    assert found.rate == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=1e-4)
    assert found.high == pytest.approx(0.3339, abs=1e-4)


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_difference_turns_with_its_order_and_holds_its_middle(n: int, m: int, data: st.DataObject) -> None:
    one = wilson(data.draw(st.integers(0, n)), n)
    other = wilson(data.draw(st.integers(0, m)), m)
    there, back = apart(one, other), apart(other, one)
    assert there is not None
    assert back is not None
    assert -1 <= there.low <= there.rate <= there.high <= 1
    assert there.low == pytest.approx(-back.high)
    assert there.rate == pytest.approx(-back.rate)
