"""Two reports side by side: first what makes them incomparable, then each rule and each rate."""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot
from typing import Any

from palette.reporting.markup import Json, listed

FORMAT = "palette-comparison/1"

NAMES = ("a", "b")
"""What the two reports are called, in the order given."""

MEASURES = ("refusal", "correct")
KINDS = ("restricted", "floor", "benign")

WHY = {
    "prompts": "different questions were asked",
    "split": "different splits were asked",
    "judge": "the replies were judged by different judges",
    "floor": "they do not agree on what the floor holds",
    "backbone": "the backbones differ, and with them what was refused before",
    "reading": "replies were read or sampled by different settings",
}
"""Why a difference in provenance makes rates incomparable, by the name of what differs."""


def compare(a: Json, b: Json) -> dict[str, Any]:
    """Two valid reports as one comparison; a difference is b minus a, a share or in nats.

    ``sound`` is false where the two do not answer the same question; ``caveats`` then says why. The
    interval of a difference comes from those of the two rates, d ± √(δa² + δb²) with the distances to
    their ends (Newcombe, Statistics in Medicine 17, 1998, method 10); for two adapters that were asked
    the same prompts it is wider than a paired one would be.
    """
    caveats = list(differing(a, b))
    return {
        "format": FORMAT,
        "sound": not caveats,
        "caveats": caveats,
        **{name: identity(one) for name, one in zip(NAMES, (a, b), strict=True)},
        "rules": rules(a, b),
        "rates": list(rates(a, b)),
        "divergence": {
            horizon: numbers(*(one["adapted"]["divergence"][horizon] for one in (a, b)))
            for horizon in ("first_token", "multi_token")
        },
    }


def identity(report: Json) -> dict[str, Any]:
    """What one of the two reports is about, and its verdict."""
    return {
        "model": report["model"]["name"],
        "authorised": list(report["authorised"]),
        "split": report["split"],
        "adapter": report["provenance"].get("adapter"),
        "passed": report["gate"]["passed"],
    }


def differing(a: Json, b: Json) -> Iterator[dict[str, Any]]:
    """Each difference in provenance that makes the rates incomparable."""
    for what, why in WHY.items():
        one, other = (stated(report)[what] for report in (a, b))
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
                one, other = ({key: side.get(key) for key in keys} for side in (one, other))
            yield {"what": what, "why": why, "a": one, "b": other}


def stated(report: Json) -> dict[str, Any]:
    """What a report says of the question that it answers."""
    source, split = report["provenance"], report["split"]
    asked = source["recipe"].get("evaluate")
    reading = dict(asked) if isinstance(asked, dict) else {}
    if cut := (report.get("judging") or {}).get("floor_tokens"):
        reading["floor_tokens"] = cut
    return {
        "prompts": source["prompts"].get(split) or listed([*source["prompts"].values()]),
        "split": split,
        "judge": source["judge"],
        "floor": source["floor"],
        "backbone": report["model"]["fingerprint"],
        "reading": {key: reading[key] for key in sorted(reading) if key not in ("gate", "split")},
    }


def rules(a: Json, b: Json) -> list[dict[str, Any]]:
    """Every rule of either gate with both results; ``changed`` where the verdict or the limit differs."""
    held = [{rule["name"]: rule for rule in report["gate"]["rules"]} for report in (a, b)]
    names = list(dict.fromkeys(name for rules in held for name in rules))
    found = []
    for name in names:
        both = [rules.get(name) for rules in held]
        said = [rule and (rule["passed"], rule["limit"]) for rule in both]
        found.append({"name": name, **dict(zip(NAMES, both, strict=True)), "changed": said[0] != said[1]})
    return found


def rates(a: Json, b: Json) -> Iterator[dict[str, Any]]:
    """Every rate of either report, before and after, with the difference where both have it."""
    for side in ("base", "adapted"):
        tables = [report[side]["domains"] for report in (a, b)]
        for domain in sorted({domain for table in tables for domain in table}):
            for kind in KINDS:
                for measure in MEASURES:
                    both = [table.get(domain, {}).get(kind, {}).get(measure) for table in tables]
                    if any(both):
                        place = {"side": side, "domain": domain, "kind": kind, "measure": measure}
                        yield {**place, **dict(zip(NAMES, both, strict=True)), "difference": apart(*both)}


def apart(a: Json | None, b: Json | None) -> dict[str, float] | None:
    """The difference b − a of two rates with its interval, in points of share."""
    if not (a and b):
        return None
    change = b["rate"] - a["rate"]
    below = hypot(b["rate"] - b["low"], a["high"] - a["rate"])
    above = hypot(b["high"] - b["rate"], a["rate"] - a["low"])
    return {"rate": change, "low": max(-1.0, change - below), "high": min(1.0, change + above)}


def numbers(a: float | None, b: float | None) -> dict[str, float | None]:
    """Two numbers and their difference, where both were measured."""
    return {"a": a, "b": b, "difference": None if a is None or b is None else b - a}
