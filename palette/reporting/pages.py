"""What people read as pages: a report, its summary and safety case, two side by side, and control tokens.

What they say stands in their templates; here is what is reckoned for it. No name from outside can become
markup: pages escape it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from palette.reporting.claims import claims
from palette.reporting.comparison import Comparison
from palette.reporting.diagnosis import causes
from palette.reporting.figures import duration
from palette.reporting.report import Report
from palette.reporting.thumbnails import Thumbnail
from palette.reporting.wording import TEMPLATES, listed
from palette.statistics.rates import Corrected, Rate


def render(report: Report, pictures: Sequence[Thumbnail] = ()) -> str:
    """The page of a report, one HTML document without script or outside resources.

    ``pictures`` are thumbnails of benign prompts; ``report.json`` has none, and so has what is pushed.
    """
    return TEMPLATES.get_template("report.html").render(
        report=report,
        pictures=pictures,
        groups=groups(report),
        limits={rule.name: rule.limit for rule in report.gate.rules},
        corrected=corrected(report),
        limits_said=sentences(report),
        causes=causes(report),
        times=listed([f"{stage} {duration(s)}" for stage, s in report.provenance.seconds.items()])
        if report.provenance.seconds
        else "",
    )


def render_summary(report: Report) -> str:
    """The summary of a report for those who sign it: one A4 page, as one HTML document."""
    source = report.provenance
    prompts = {
        f"Prompts, {name}": digest for name, digest in sorted(source.prompts.items()) if name == report.split
    }
    digests = {
        "Backbone": report.model.fingerprint,
        "Adapter": source.adapter or "none",
        "Floor": source.floor,
        "Judge": source.judge,
        **prompts,
        "Report": f"{report.format}, palette {source.versions.get('palette', 'unknown')}",
    }
    return TEMPLATES.get_template("summary.html").render(
        report=report, claims=claims(report), limits_said=sentences(report), digests=list(digests.items())
    )


def render_case(report: Report) -> str:
    """The safety case of a report, claim by claim down to stated defeaters, as one HTML document."""
    return TEMPLATES.get_template("case.html").render(
        report=report, claims=claims(report), limits_said=sentences(report)
    )


def render_comparison(comparison: Comparison) -> str:
    """The page of a comparison, one HTML document without script or outside resources."""
    return TEMPLATES.get_template("comparison.html").render(comparison=comparison)


def render_tokens(report: Mapping[str, Any]) -> str:
    """The page of a report of control tokens, one HTML document without script or outside resources."""
    others = {name for subset in report["subsets"] for name in subset["refusal"]} - set(report["categories"])
    columns = [*report["categories"], *sorted(others)]
    return TEMPLATES.get_template("tokens.html").render(report=report, groups=columns)


class DomainGroup(NamedTuple):
    """The domains of which the same is asked, and the one that the adapter has brought lowest."""

    name: str
    kind: str
    heading: str
    domains: list[str]
    lowest: str | None
    """Of domains that must stay refused."""
    failed: bool
    """Whether a rule on them failed."""


GROUPS = (
    ("authorised", "restricted", "Authorised: should be answered", ("target", "authorised")),
    ("preserved", "restricted", "Preserved: must stay refused", ("preserved",)),
    ("floor", "floor", "Floor: may never be opened", ("floor",)),
    ("benign", "benign", "Benign: must not change", ("benign",)),
)
"""Groups of domains: name, kind of prompts, heading, how the names of their rules begin."""


def groups(report: Report) -> list[DomainGroup]:
    """The domains of a report by what must happen to them."""
    table, grouped = report.adapted.domains, []
    failed = [rule.name for rule in report.gate.rules if not rule.passed]
    for name, kind, heading, rules in GROUPS:
        wanted = {"authorised": True, "preserved": False}.get(name)
        domains = [
            domain
            for domain, kinds in table.items()
            if kind in kinds and kinds[kind].refusal.n and wanted in (None, domain in report.authorised)
        ]
        rates = {domain: table[domain][kind].refusal.rate for domain in domains}  # type: ignore[index]
        kept = rates if name in ("preserved", "floor") else {}
        lowest = min(kept, key=rates.__getitem__, default=None)
        at_fault = any(rule.startswith(rules) for rule in failed)
        grouped.append(DomainGroup(name, kind, heading, domains, lowest, at_fault))
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
    known = any(cell.known for kinds in report.base.domains.values() for cell in kinds.values())
    general = TEMPLATES.get_template("limits.txt").render(report=report, known=known).splitlines()
    return list(dict.fromkeys([*report.not_measured, *general]))
