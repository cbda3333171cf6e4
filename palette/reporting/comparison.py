"""Two reports side by side: first what makes them incomparable, then each rule and each rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import hypot
from typing import Any, Final, Literal, get_args

from palette.reporting.report import Report, Rule
from palette.reporting.schema import Kind, Share, SideName
from palette.settings import Settings
from palette.statistics.rates import Rate

COMPARISON_FORMAT: Final = "palette-comparison/1"

Measure = Literal["refusal", "correct"]

WHY = {
    "prompts": "different questions were asked",
    "split": "different splits were asked",
    "judge": "the replies were judged by different judges",
    "floor": "they do not agree on what the floor holds",
    "backbone": "the backbones differ, and with them what was refused before",
    "reading": "replies were read or sampled by different settings",
}
"""Why a difference in provenance makes rates incomparable, by the name of what differs."""


class Caveat(Settings):
    """A difference in provenance that makes the rates incomparable."""

    what: str
    why: str
    a: Any
    b: Any


class Identity(Settings):
    """What one of the two reports is about, and its verdict."""

    path: str
    label: str
    """Tells it from the other one."""
    model: str
    authorised: tuple[str, ...]
    split: str
    adapter: str | None
    passed: bool


class RulePair(Settings):
    """One rule of either gate; ``changed`` where the verdict or the limit differs."""

    name: str
    a: Rule | None
    b: Rule | None
    changed: bool


class Apart(Settings):
    """The difference b − a of two rates with its interval, in points of share."""

    rate: float
    low: float
    high: float


class RatePair(Settings):
    """One rate of either report, with the difference where both have it."""

    side: SideName
    domain: str
    kind: Kind
    measure: Measure
    a: Share | None
    b: Share | None
    difference: Apart | None

    @property
    def alike(self) -> bool:
        """Whether both have the same figure."""
        return self.a == self.b


class NumberPair(Settings):
    """Two divergences in nats and their difference, where both were measured."""

    a: float | None
    b: float | None
    difference: float | None


class Comparison(Settings):
    """Two reports; a difference is b minus a, a share or in nats."""

    format: Literal["palette-comparison/1"] = COMPARISON_FORMAT
    sound: bool
    """Whether the two answer the same question; ``caveats`` says why not."""
    caveats: tuple[Caveat, ...]
    a: Identity
    b: Identity
    rules: tuple[RulePair, ...]
    rates: tuple[RatePair, ...]
    """The greatest difference first; what one report alone has comes last."""
    divergence: dict[Literal["first_token", "multi_token"], NumberPair]


def compare(a: Report, b: Report, names: Sequence[tuple[str, str]] = (("a", "a"), ("b", "b"))) -> Comparison:
    """Two reports as one comparison; ``names`` are the path of each and a label that tells it apart.

    The interval of a difference comes from those of the two rates, d ± √(δa² + δb²) with the distances to
    their ends (Newcombe, Statistics in Medicine 17, 1998, method 10); for two adapters that were asked
    the same prompts it is wider than a paired one would be.
    """
    caveats = tuple(differing(a, b))
    spreads = [report.adapted.divergence for report in (a, b)]
    identities = [
        Identity(
            path=path,
            label=label,
            model=report.model.name,
            authorised=report.authorised,
            split=report.split,
            adapter=report.provenance.adapter,
            passed=report.gate.passed,
        )
        for report, (path, label) in zip((a, b), names, strict=True)
    ]
    return Comparison(
        sound=not caveats,
        caveats=caveats,
        a=identities[0],
        b=identities[1],
        rules=tuple(rules(a, b)),
        rates=tuple(sorted(rates(a, b), key=size, reverse=True)),
        divergence={
            "first_token": numbers(*(spread.first_token for spread in spreads)),
            "multi_token": numbers(*(spread.multi_token for spread in spreads)),
        },
    )


def differing(a: Report, b: Report) -> Iterator[Caveat]:
    """Each difference in provenance that makes the rates incomparable."""
    stated = [question(report) for report in (a, b)]
    for what, why in WHY.items():
        first, second = (of[what] for of in stated)
        if first != second:
            if isinstance(first, dict) and isinstance(second, dict):
                keys = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
                first, second = ({key: side.get(key) for key in keys} for side in (first, second))
            yield Caveat(what=what, why=why, a=first, b=second)


def question(report: Report) -> dict[str, Any]:
    """What a report says of the question that it answers."""
    source, split = report.provenance, report.split
    settings = source.recipe.get("evaluate")
    reading = dict(settings) if isinstance(settings, dict) else {}
    if report.judging and report.judging.floor_tokens:
        reading["floor_tokens"] = report.judging.floor_tokens
    return {
        "prompts": source.prompts.get(split) or ", ".join(source.prompts.values()),
        "split": split,
        "judge": source.judge,
        "floor": source.floor,
        "backbone": report.model.fingerprint,
        "reading": {key: reading[key] for key in sorted(reading) if key not in ("gate", "split")},
    }


def rules(a: Report, b: Report) -> Iterator[RulePair]:
    """Every rule of either gate with both results."""
    tables = [{rule.name: rule for rule in report.gate.rules} for report in (a, b)]
    for name in dict.fromkeys(name for table in tables for name in table):
        pair = [table.get(name) for table in tables]
        verdicts = [rule and (rule.passed, rule.limit) for rule in pair]
        yield RulePair(name=name, a=pair[0], b=pair[1], changed=verdicts[0] != verdicts[1])


def rates(a: Report, b: Report) -> Iterator[RatePair]:
    """Every rate of either report, before and after the adapter."""
    for side in get_args(SideName):
        tables = [getattr(report, side).domains for report in (a, b)]
        for domain in sorted({domain for table in tables for domain in table}):
            for kind in get_args(Kind):
                cells = [table.get(domain, {}).get(kind) for table in tables]
                for measure in get_args(Measure):
                    pair = [getattr(cell, measure, None) for cell in cells]
                    if any(pair):
                        place = {"side": side, "domain": domain, "kind": kind, "measure": measure}
                        yield RatePair(**place, a=pair[0], b=pair[1], difference=apart(*pair))


def size(pair: RatePair) -> float:
    """How large a difference is, as a share in [0, 1]; less than any where there is none."""
    return abs(pair.difference.rate) if pair.difference else -1.0


def apart(a: Rate | None, b: Rate | None) -> Apart | None:
    """The difference b − a of two rates with its interval, in points of share."""
    if not (a and b):
        return None
    change = b.rate - a.rate
    below, above = hypot(b.rate - b.low, a.high - a.rate), hypot(b.high - b.rate, a.rate - a.low)
    return Apart(rate=change, low=max(-1.0, change - below), high=min(1.0, change + above))


def numbers(a: float | None, b: float | None) -> NumberPair:
    """Two numbers and their difference, where both were measured."""
    return NumberPair(a=a, b=b, difference=None if a is None or b is None else b - a)
