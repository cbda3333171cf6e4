"""Evaluate: every subset of categories active, on every kind of prompt, judged, counted, and gated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palette.files import write_json, write_text
from palette.judging.judge import Judge
from palette.mosaic.certify import ordinary_gate
from palette.mosaic.latency import latencies
from palette.mosaic.mounting import mounted_tokens
from palette.mosaic.outcomes import TokenOutcome, figures, token_gate
from palette.mosaic.requests import Subset, ask, judged, under
from palette.mosaic.sampling import subsets
from palette.mosaic.settings import TokenEvaluateSettings
from palette.mosaic.tokens import ControlTokens
from palette.reporting.pages import render_tokens
from palette.run import Run

REPORT, PAGE = Path("report.json"), Path("report.html")
FORMAT = "palette-tokens-report/1"


def evaluate(
    run: Run,
    settings: TokenEvaluateSettings,
    judge: Judge,
    tokens: ControlTokens,
    provenance: dict[str, Any],
    active: Sequence[Subset] = (),
) -> dict[str, Any]:
    """The report, also written as ``report.json`` and ``report.html`` into the run's folder.

    By default all subsets up to ``settings.orders`` categories are made active, one after the other. Of
    authorising tokens the subsets that are named are put to the ordinary gate too.

    Raises:
        PromptError: if the split has no prompt.
        AdapterError: if the tokens are another backbone's, or a category is unknown.
    """
    chosen = [tokens.subset(one) for one in active] or [
        subset
        for order in range(1, min(settings.orders, len(tokens.categories)) + 1)
        for subset in subsets(tokens.categories, order)
    ]
    asked = ask(run, settings, tokens.sign)
    with (
        mounted_tokens(run.backbone, tokens, released=settings.released) as controlled,
        run.progress("evaluate", len(chosen) * len(asked.rows)) as advance,
    ):
        outcomes, ordinary = [], {}
        for subset in chosen:
            replies = under(controlled, settings, asked, subset)
            about = (tokens.categories, tokens.sign)
            outcomes += judged(controlled, about, judge, asked, subset, replies)
            if active and tokens.sign == "authorise":
                ordinary["+".join(subset)] = ordinary_gate(
                    controlled, run.authorisation, judge, asked, subset, replies
                )
            advance(len(asked.rows))
        latency = latencies(controlled, asked.prompts[: settings.latency_prompts])
    report = assembled(tokens, chosen, outcomes, settings)
    report = {
        "format": FORMAT,
        "model": {"name": run.backbone.name, "fingerprint": run.backbone.fingerprint},
        "split": settings.split,
        **report,
        "released": controlled.releases,
        "gate": joined([report["gate"], *ordinary.values()]),
        "latency": latency,
        "provenance": provenance,
    }
    write_text(run.folder / PAGE, render_tokens(report))
    write_json(run.folder / REPORT, report)
    return report


def joined(verdicts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One verdict of several: passed when all of them are."""
    rules = [rule for verdict in verdicts for rule in verdict["rules"]]
    return {"passed": all(rule["passed"] for rule in rules), "rules": rules}


def assembled(
    tokens: ControlTokens,
    chosen: Sequence[Subset],
    outcomes: Sequence[TokenOutcome],
    settings: TokenEvaluateSettings,
) -> dict[str, Any]:
    """The part of the report that is counted: subsets, orders, the heat map, and the gate."""
    by_subset: dict[Subset, list[TokenOutcome]] = {subset: [] for subset in chosen}
    for outcome in outcomes:
        by_subset[outcome.active].append(outcome)
    orders: dict[int, list[TokenOutcome]] = {}
    for subset, found in by_subset.items():
        orders.setdefault(len(subset), []).extend(found)
    counted = {order: figures(found) for order, found in sorted(orders.items())}
    limits = settings.gate
    return {
        "sign": tokens.sign,
        "categories": list(tokens.categories),
        "slots": tokens.slots,
        "place": tokens.place,
        "parameters": tokens.table.numel(),
        "subsets": [
            {"active": list(subset), "order": len(subset), **figures(found)}
            for subset, found in by_subset.items()
        ],
        "orders": {str(order): found for order, found in counted.items()},
        "gate": token_gate(counted, limits.defence, limits.over_refusal, limits.utility_drop),
    }


__all__ = ["PAGE", "REPORT", "evaluate"]
