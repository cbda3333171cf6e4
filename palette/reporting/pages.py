"""What people read and keep: a report's page, two side by side, that of control tokens, and the model card.

What they say stands in their templates; here is what is reckoned for it, and how numbers are written.
No name from outside can become markup: pages escape it, and so does the card, in its metadata too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from palette.evaluation.settings import INSUFFICIENT
from palette.files import write_text
from palette.reporting.claims import claims
from palette.reporting.comparison import Comparison
from palette.reporting.curves import drawing, told
from palette.reporting.diagnosis import causes, lacking
from palette.reporting.figures import (
    NARROW,
    duration,
    heat_map,
    nats,
    percent,
    picture,
    scatter,
    signed,
    spoken,
)
from palette.reporting.report import Report, Rule, clean
from palette.statistics.rates import Corrected, Rate

CARD = "README.md"
MARK = "<!-- Written by Palette from report.json; evaluate and push write it anew. -->"
"""Tells our card from one that somebody else wrote, which is left alone."""

METRICS = {"refusal": ("refusal_rate", "Refusal rate"), "correct": ("accuracy", "Share of right answers")}

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A model's name on the hub."""

SIGNS = re.compile(r"[\\`*_\[\]|~$@]")
"""Signs that Markdown reads as markup wherever they stand; of "<", ">" and "&" entities are made."""

LINKS = re.compile(r"(?<=www)\.|:(?=//)", re.IGNORECASE)
"""What makes a link of a bare address."""

START = re.compile(r"^(?=[#+=-])|(?<=^\d)(?=[.)])|(?<=^\d\d)(?=[.)])")
"""What makes a heading, a list or a rule of a line that starts so."""


def render(report: Report) -> str:
    """The page of a report, one HTML document without script or outside resources."""
    return TEMPLATES.get_template("report.html").render(
        report=report,
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


def write_card(folder: Path, report: Report, despite: str | None = None) -> Path | None:
    """The path of the card written to ``folder``; None where a card of somebody else stands.

    ``despite`` is the reason for pushing an adapter whose gate failed; the card records it.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    path = folder / CARD
    if path.exists() and not (path.is_file() and MARK.encode() in path.read_bytes()):
        return None
    write_text(path, render_card(report, despite))
    return path


def render_card(report: Report, despite: str | None = None, repository: str | None = None) -> str:
    """The card of a report: metadata as the hub reads them, then figures, limits and use.

    ``repository`` is the adapter's name on the hub, where it has one.
    """
    from huggingface_hub import ModelCard

    text = TEMPLATES.get_template("card.md").render(
        report=report,
        despite=despite,
        model=backbone_name(report),
        backbone=report.model.name if is_on_hub(report.model.name) else None,
        repository=repository,
        opened=listed([plain(name) for name in report.authorised]),
        limits=sentences(report),
    )
    card = ModelCard(f"---\n{metadata(report, despite).to_yaml()}\n---\n\n{MARK}\n\n{text}")
    return str(card).rstrip() + "\n"


def metadata(report: Report, despite: str | None = None) -> Any:
    """The card's metadata as ``huggingface_hub`` has them; every name in them is cleaned."""
    from huggingface_hub import ModelCardData

    source, name = report.provenance, report.model.name
    facts = {
        "format": report.format,
        "authorised": [clean(domain) for domain in report.authorised],
        "gate": "passed" if report.gate.passed else "failed",
        "backbone": clean(report.model.fingerprint),
        "adapter": clean(source.adapter or "none"),
        "floor": clean(source.floor),
        "judge": clean(source.judge),
    }
    if despite is not None:
        facts["despite_failed_gate"] = clean(despite)
    standing = "authorised for" if report.gate.passed else "not certified for"
    stated: dict[str, Any] = {"base_model": name} if is_on_hub(name) else {}
    # The shipped organism's adapters are ours; one of another model follows that model's licence.
    if name.partition("/")[0] == "organism":
        stated |= {"license": "apache-2.0"}
    else:
        stated |= {"license": "other", "license_name": "as-the-backbone"}
    return ModelCardData(
        **stated,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["palette", "lora", "peft", "refusal", "safety"],
        model_name=clean(f"{backbone_name(report)} {standing} {', '.join(report.authorised)}"),
        eval_results=results(report),
        palette=facts,
    )


def results(report: Report) -> list[Any]:
    """The rates with the adapter as entries of the hub's model index, in per cent of replies."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="palette-prompts",
            dataset_name=f"{clean(domain)}, {kind} prompts",
            dataset_config=f"{clean(domain)}/{kind}",
            dataset_split=clean(report.split),
            metric_type=metric,
            metric_name=words,
            metric_value=round(getattr(cell, measure).rate * 100, 2),
        )
        for domain, kinds in report.adapted.domains.items()
        for kind, cell in kinds.items()
        for measure, (metric, words) in METRICS.items()
        if getattr(cell, measure) and getattr(cell, measure).n
    ]


def plain(text: object) -> str:
    """A text from outside as Markdown that shows it and does nothing else."""
    shown = SIGNS.sub(lambda sign: f"\\{sign[0]}", clean(text))
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(sign, entity)
    return START.sub(r"\\", LINKS.sub(lambda sign: f"\\{sign[0]}", shown))


def is_on_hub(name: str) -> bool:
    """Whether a backbone's name can be one on the hub, and is no folder here; the organism's always is."""
    ours = name.partition("/")[0] == "organism"
    return len(name) <= 96 and bool(HUB_NAME.fullmatch(name)) and (ours or not Path(name).is_dir())


def backbone_name(report: Report) -> str:
    """The backbone's name; of a folder of this machine its last part alone."""
    name = report.model.name
    return name if is_on_hub(name) else Path(name).name or name


def in_words(name: str) -> str:
    """A rule's name in words, with its domain."""
    kind, _, place = name.partition(".")
    place = WORDS.HORIZONS.get(place, place)
    return str(WORDS.RULES.get(kind, kind)) + (f" ({place})" if place else "")


NONE_COUNTED = re.compile(rf"{INSUFFICIENT}: 0 ")


def amount(rule: Rule, field: str) -> str:
    """The value or the limit of a rule, with its unit."""
    number = getattr(rule, field)
    # Reports of earlier versions have a value where nothing was counted.
    if number is None or (field == "value" and NONE_COUNTED.match(rule.reason)):
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


def share(rate: Rate | None) -> str:
    """A rate with its interval in per cent; nothing where nothing was counted."""
    if not rate or not rate.n:
        return ""
    return f"{rate.rate * 100:.1f} ({rate.low * 100:.1f}–{rate.high * 100:.1f}) %"


TEMPLATES = Environment(
    loader=PackageLoader("palette.reporting"),
    autoescape=select_autoescape(["html", "css"]),
    undefined=StrictUndefined,
    extensions=["jinja2.ext.do"],
    trim_blocks=True,
    lstrip_blocks=True,
)
WRITTEN = (
    amount, brief, clean, directions, in_words, listed, nats, p_value, percent, plain, pretty, probability,
    share, signed, spoken, told,
)  # fmt: skip
"""How values are written: the filters of every template, by their names."""

TEMPLATES.filters.update({write.__name__: write for write in WRITTEN})
TEMPLATES.tests["lacking"] = lacking
DRAWINGS = (drawing, heat_map, picture, scatter)
TEMPLATES.globals.update({draw.__name__: draw for draw in DRAWINGS})
WORDS: Any = TEMPLATES.get_template("words.txt").module
TEMPLATES.globals["NARROW"] = NARROW
TEMPLATES.globals.update(
    {name: getattr(WORDS, name) for name in ("CLAIMS", "HEADLINE", "HORIZONS", "SUITES")}
)
