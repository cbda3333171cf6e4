"""The shipped suites over the real public files, where PALETTE_DATA says that they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from palette.suites.measures import measured
from palette.suites.schema import load_suite

DATA = os.environ.get("PALETTE_DATA")
RECIPES = Path(__file__).parents[2] / "recipes" / "suites"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="PALETTE_DATA names no folder of public files"),
]


def on(measuring, suite, adapted):
    run = measuring(*suite.measures, adapted=adapted, reply_tokens=suite.reply_tokens)
    run.data = Path(DATA)
    return run


def test_over_refusal(measuring):
    few = [*(f"measures.{place}.limit=12" for place in range(3)), "reply_tokens=4"]
    suite = load_suite(RECIPES / "over-refusal.yaml", few)
    found = measured(on(measuring, suite, adapted=True))
    assert all(one.n >= 12 for one in found)
    assert [one.source.rows for one in found] == [450, 379, 750]


def test_utility_and_knowledge(measuring):
    pytest.importorskip("lm_eval")
    few = [f"measures.{place}.{key}" for place in range(7) for key in ("limit=2", "shots=0")]
    suite = load_suite(RECIPES / "utility.yaml", [*few, "measures.1.reply_tokens=4"])
    found = measured(on(measuring, suite, adapted=False))
    assert [one.n for one in found] == [16, 2, 4, 4, 2, 2, 2]
    assert found[0].source.source == "hendrycks/test"
