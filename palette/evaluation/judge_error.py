"""What is known of the judge's own error: where two judges differ, and rates freed of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palette.evaluation.outcomes import SIDES, Table
from palette.judging.judge import Judge, Verdict
from palette.judging.panel import DISAGREEMENT, PanelJudge, disagreements
from palette.statistics import Rate, rogan_gladen

MOST = 50
"""Prompts named at most where the judges disagree."""


def judging(
    judge: Judge,
    name: str,
    ids: Sequence[str],
    verdicts: Mapping[str, Sequence[Verdict]],
    tables: Mapping[str, Table],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The section ``judging`` of a report: who judged, on what they disagreed, and corrected refusal rates.

    ``verdicts`` and ``tables`` are by side. Without a calibration no rate is corrected, and none is
    where its judge cannot be told from chance.
    """
    disputed = [
        prompt_id
        for prompt_id, *pair in zip(ids, *(verdicts[side] for side in SIDES), strict=True)
        if any(DISAGREEMENT in verdict.flags for verdict in pair)
    ]
    both = isinstance(judge, PanelJudge)
    differing = {side: disagreements(verdicts[side]).to_json() for side in SIDES}
    return {
        "judges": ["rule", "trained"] if both else [name],
        "fingerprint": judge.fingerprint,
        "disagreements": {**differing, "ids": disputed[:MOST]} if both else None,
        "calibration": dict(calibration) if calibration else None,
        "corrected": corrected(tables, calibration) if calibration else {},
    }


def corrected(
    tables: Mapping[str, Table], calibration: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Refusal rates in [0, 1] by side, domain and kind, as they would be without the judge's error.

    By Rogan and Gladen; nothing where the judge was measured on too few replies, or is too poor.
    """
    found = complement(calibration["missed_refusals"])
    left = complement(calibration["false_alarms"])
    if found.low + left.low <= 1:
        return {}
    return {
        side: {
            domain: {
                kind: rogan_gladen(Rate(**cell["refusal"]), found, left).to_json()  # type: ignore[arg-type]
                for kind, cell in kinds.items()
            }
            for domain, kinds in table.items()
        }
        for side, table in tables.items()
    }


def complement(rate: Mapping[str, float]) -> Rate:
    """The share of the others: 1 − rate, with its interval."""
    n = int(rate["n"])
    return Rate(1 - rate["rate"], 1 - rate["high"], 1 - rate["low"], n - int(rate["k"]), n)
