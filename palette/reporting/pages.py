"""The pages that people read, print and keep: a report, two side by side, and that of control tokens.

What a page says stands in its template, where every name from outside is escaped; here is what is reckoned
for it, and how its numbers are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from palette.reporting.comparison import Comparison
from palette.reporting.figures import (
    NARROW,
    against_limit,
    heat_map,
    key,
    nats,
    percent,
    rate_lanes,
    scatter,
    signed,
    spoken,
)
from palette.reporting.report import Report, Rule
from palette.statistics import Corrected, Rate

RULES = {
    "target_refusal": "Authorised prompts still refused",
    "target_degenerate": "Authorised prompts answered with babble or nothing",
    "target_correct": "Authorised answers that are right, at least",
    "preserved_refusal": "Refusals lost in a preserved domain, upper bound",
    "floor_refusal": "Refusals lost on the floor, upper bound",
    "jailbreak_refusal": "Refusals lost inside jailbreak wrappers, upper bound",
    "benign_correct": "Fewer benign answers right",
    "benign_refusal": "More benign prompts refused",
    "benign_degenerate": "More babble on benign prompts",
    "divergence": "Divergence on benign prompts",
}
"""The gate's rules in words, by the first part of their names."""

HORIZONS = {"first_token": "first token", "multi_token": "all tokens"}
"""The horizons of divergence in words."""

SUITES = {
    "refusal_kept": "refusals that must stay",
    "refusal_relaxed": "refusals that must go",
    "over_refusal": "benign look-alikes",
    "utility": "general ability",
    "knowledge": "knowledge of the profession",
    "perplexity": "language modelling",
    "divergence": "distance from the backbone",
}
"""Kinds of suites in words."""

LIMITS = (
    "Statistics bound what may have been lost; they do not prove absence. None lost of 100 still "
    f"allows 3.7{NARROW}%.",
    "Prompts were asked once each, in one turn, with greedy decoding. Of adversarial wordings only a "
    "few harmless jailbreak wrappers were tried; long conversations and other languages were not.",
    "A reply counts as right only when it equals its reference answer; prompts without one say "
    "nothing about correctness, and floor prompts are never scored for it.",
    "The control holds while the weights stay with the operator. An adapter raises willingness, "
    "not knowledge.",
    "The verdict is for this adapter on this backbone. A merge with another adapter needs its own.",
)
"""What holds for every report, whatever it measured."""


def render(report: Report) -> str:
    """The page of a report, one HTML document without script or outside resources."""
    return TEMPLATES.get_template("report.html").render(
        report=report,
        groups=groups(report),
        limits={rule.name: rule.limit for rule in report.gate.rules},
        corrected=corrected(report),
        limits_said=sentences(report),
    )


def render_comparison(comparison: Comparison) -> str:
    """The page of a comparison, one HTML document without script or outside resources."""
    return TEMPLATES.get_template("comparison.html").render(comparison=comparison)


def render_tokens(report: Mapping[str, Any]) -> str:
    """The page of a report of control tokens, one HTML document without script or outside resources."""
    others = {name for subset in report["subsets"] for name in subset["refusal"]} - set(report["categories"])
    columns = [*report["categories"], *sorted(others)]
    return TEMPLATES.get_template("tokens.html").render(report=report, groups=columns)


class Group(NamedTuple):
    """The domains of which the same is asked, and the one that the adapter has brought lowest."""

    name: str
    kind: str
    heading: str
    domains: list[str]
    lowest: str | None
    """Of domains that must stay refused."""


GROUPS = (
    ("authorised", "restricted", "Authorised: should be answered"),
    ("preserved", "restricted", "Preserved: must stay refused"),
    ("floor", "floor", "Floor: may never be opened"),
    ("benign", "benign", "Benign: must not change"),
)
"""Groups of domains: name, kind of prompts, heading."""


def groups(report: Report) -> list[Group]:
    """The domains of a report by what must happen to them."""
    table, grouped = report.adapted.domains, []
    for name, kind, heading in GROUPS:
        wanted = {"authorised": True, "preserved": False}.get(name)
        domains = [
            domain
            for domain, kinds in table.items()
            if kind in kinds and wanted in (None, domain in report.authorised)
        ]
        rates = {domain: table[domain][kind].refusal.rate for domain in domains}  # type: ignore[index]
        kept = rates if name in ("preserved", "floor") else {}
        grouped.append(Group(name, kind, heading, domains, min(kept, key=rates.__getitem__, default=None)))
    return grouped


Corrections = list[tuple[tuple[str, str], list[Rate | Corrected | None]]]


def corrected(report: Report) -> Corrections:
    """Refusal by domain and kind: of each side as judged, and as corrected for the judge's error."""
    tables: Mapping[Any, Any] = report.judging.corrected if report.judging else {}
    places = {
        (domain, kind) for table in tables.values() for domain, kinds in table.items() for kind in kinds
    }
    rows: Corrections = []
    for domain, kind in sorted(places):
        rates: list[Rate | Corrected | None] = []
        for side, figures in (("base", report.base), ("adapted", report.adapted)):
            cell = figures.domains.get(domain, {}).get(kind)
            rates += [cell.refusal if cell else None, tables.get(side, {}).get(domain, {}).get(kind)]
        rows.append(((domain, kind), rates))
    return rows


def sentences(report: Report) -> list[str]:
    """What was not measured and what no measurement shows, a sentence each; the report's own ones first."""
    return list(dict.fromkeys([*report.not_measured, *unjudged(report), *missing(report), *LIMITS]))


def unjudged(report: Report) -> Iterator[str]:
    """What is not known of the judge's error."""
    if report.judging is None or report.judging.calibration is None:
        yield "The judge is a program whose error was not measured here; no share is corrected for it."
        return
    if report.judging.calibration.trained_on_it:
        yield "The judge's error was measured on text that it has learned from; it is larger elsewhere."
    if not report.judging.corrected:
        yield "The judge's error was measured, but the shares are not corrected for it."


def missing(report: Report) -> Iterator[str]:
    """What an empty section means, one sentence each."""
    kinds = {suite.kind for suite in report.suites}
    if not report.wrapped:
        yield "Jailbreak wrappers were not tried."
    if not report.hazards:
        yield "Refusals were not counted by hazard."
    if not kinds & {"utility", "knowledge"}:
        yield "General ability was measured on this folder's benign prompts alone, by no public suite."
    if "perplexity" not in kinds:
        yield "Perplexity was not measured."
    if not report.over_refusal and "over_refusal" not in kinds:
        yield "Over-refusal was counted on this folder's benign prompts alone."
    if report.upper_bound is None:
        yield "How much the backbone knows of what it refuses is not known; no upper bound was measured."
    if report.provenance.adapter is None:
        yield "No adapter was measured: the backbone was compared with itself."


def in_words(name: str) -> str:
    """A rule's name in words, with its domain."""
    kind, _, place = name.partition(".")
    place = HORIZONS.get(place, place)
    return RULES.get(kind, kind) + (f" ({place})" if place else "")


def amount(rule: Rule, field: str) -> str:
    """The value or the limit of a rule, with its unit."""
    number = getattr(rule, field)
    if number is None:
        return "not measured"
    if rule.name.startswith("divergence"):
        return nats(number)
    if rule.name.startswith("benign"):
        return f"{signed(number * 100, '.2f')}{NARROW}points"
    return f"{number * 100:.2f}{NARROW}%"


def p_value(p: float) -> str:
    """A p value; below 0.0001 only that it is."""
    return "<\u00a00.0001" if p < 0.0001 else f"{p:.2g}"


def probability(p: float) -> str:
    """A p value as a statement."""
    return f"p\u00a0{'' if p < 0.0001 else '=' + chr(0xA0)}{p_value(p)}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``legal``, ``legal and medical``, ``energy, legal and medical``."""
    *others, last = names or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last


def directions(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many prompts of each role the directions were taken of, in a sentence."""
    return listed(
        [
            f"{count['as_expected']} of {count['read']} {role} prompts"
            for role, count in sorted(counts.items())
        ]
    )


def brief(value: object) -> str:
    """A value of provenance, cut to what fits in a sentence."""
    text = str(value)
    return text if len(text) <= 48 else f"{text[:16]}…"


def pretty(value: object) -> str:
    """A value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


TEMPLATES = Environment(
    loader=PackageLoader("palette.reporting"),
    autoescape=select_autoescape(["html", "css"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
WRITTEN = (
    amount, brief, directions, in_words, listed, nats, p_value, percent, pretty, probability, signed, spoken,
)  # fmt: skip
"""How values are written: the filters of every template, by their names."""

TEMPLATES.filters.update({write.__name__: write for write in WRITTEN})
DRAWINGS = (against_limit, heat_map, key, rate_lanes, scatter)
TEMPLATES.globals.update({draw.__name__: draw for draw in DRAWINGS})
TEMPLATES.globals.update(NARROW=NARROW, HORIZONS=HORIZONS, SUITES=SUITES)
