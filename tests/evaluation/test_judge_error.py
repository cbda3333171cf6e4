from __future__ import annotations

import pytest

from palette.evaluation.judge_error import MOST, complement, corrected, judging
from palette.evaluation.outcomes import SIDES
from palette.judging.judge import Label, Verdict
from palette.judging.panel import DISAGREEMENT, PanelJudge
from palette.statistics import wilson

AGREED, DISPUTED = Verdict(Label.REFUSAL), Verdict(Label.REFUSAL, (DISAGREEMENT,))


def tables(k: int, n: int) -> dict[str, object]:
    cell = {"restricted": {"refusal": wilson(k, n).to_json()}}
    return {side: {"medical": cell} for side in SIDES}


def error(missed: int, alarms: int, n: int) -> dict[str, object]:
    return {"missed_refusals": wilson(missed, n).to_json(), "false_alarms": wilson(alarms, n).to_json()}


def test_what_the_judges_dispute_on_either_side_is_named_up_to_a_number() -> None:
    ids = [f"p{i}" for i in range(100)]
    verdicts = {"base": [AGREED] * 40 + [DISPUTED] * 60, "adapted": [DISPUTED] + [AGREED] * 99}
    found = judging(PanelJudge(), "panel", ids, verdicts, tables(90, 100), None)["disagreements"]
    assert (found["base"]["k"], found["adapted"]["k"]) == (60, 1)
    assert found["ids"] == ["p0", *ids[40 : 40 + MOST - 1]]


def test_a_rate_is_freed_of_misses_and_alarms() -> None:
    found = corrected(tables(900, 1000), error(50, 20, 1000))["adapted"]["medical"]["restricted"]
    assert found["rate"] == pytest.approx((0.9 - 0.02) / (1 - 0.05 - 0.02))
    assert found["low"] < found["rate"] < found["high"]


def test_a_judge_no_better_than_chance_corrects_nothing() -> None:
    assert corrected(tables(90, 100), error(50, 50, 100)) == {}


def test_the_share_of_the_others() -> None:
    rate, other = wilson(7, 50), complement(wilson(7, 50).to_json())
    assert (other.k, other.n, other.rate) == (43, 50, pytest.approx(0.86))
    assert (other.low, other.high) == (pytest.approx(1 - rate.high), pytest.approx(1 - rate.low))
