from __future__ import annotations

from typing import Any

import pytest

from palette.reporting.pages import render_tokens
from palette.statistics.rates import wilson
from tests.reporting.tree import parsed

HOSTILE = '<script>alert("1")</script>'


def rate(k: int, n: int) -> dict[str, Any]:
    return wilson(k, n).to_json()


@pytest.fixture
def report() -> dict[str, Any]:
    figures = {"defence": rate(40, 40), "over_refusal": rate(1, 60), "utility": rate(9, 10)}
    one = {"active": ["alpha"], "order": 1, **figures}
    refusal = {"alpha": rate(20, 20), HOSTILE: rate(1, 20), "neutral": rate(0, 40), "empty": rate(0, 0)}
    broken = {"name": "over_refusal.order_1", "passed": False, "value": 0.1, "limit": 0.05}
    return {
        "model": {"name": "tiny", "fingerprint": "ab" * 32},
        "split": "test",
        "sign": "restrict",
        "place": "end",
        "released": True,
        "slots": 5,
        "parameters": 1280,
        "categories": ["alpha", HOSTILE],
        "orders": {"1": {**figures, "unchanged": rate(50, 60)}},
        "subsets": [{**one, "refusal": refusal}],
        "latency": {"1": {"prefix_tokens": 5, "ratio": 1.03, "ratio_plain": 1.02}},
        "gate": {"passed": False, "rules": [{**broken, "reason": "6 of 60 prompts"}]},
    }


def test_the_page_says_the_verdict_first_and_every_subset(report: dict[str, Any]) -> None:
    page = render_tokens(report)
    assert page.index("Gate failed") < page.index("By number of active categories")
    assert "<b>over-refusal, order 1</b>: 6 of 60 prompts (limit 5.0" in page
    assert 'title="20 of 20"><b>100.0' in page
    assert 'title="1 of 20">5.0' in page
    assert "1.030" in page
    parsed(page)


def test_a_passed_gate_and_no_latency(report: dict[str, Any]) -> None:
    report["gate"] = {"passed": True, "rules": [{**report["gate"]["rules"][0], "passed": True}]}
    page = render_tokens({**report, "latency": {}})
    assert "All 1 rules hold." in page
    assert "Time of a reply" not in page


def test_names_are_text(report: dict[str, Any]) -> None:
    assert "<script" not in render_tokens(report)
