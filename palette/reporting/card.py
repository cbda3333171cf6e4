"""The model card: metadata as the hub reads them, then figures, limits and use, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.files import write_text
from palette.models import display_name, hub_name
from palette.reporting.pages import sentences
from palette.reporting.report import Report, clean
from palette.reporting.wording import TEMPLATES, listed, plain

CARD = "README.md"
MARK = "<!-- Written by Palette from report.json; evaluate and push write it anew. -->"
"""Tells our card from one that somebody else wrote, which is left alone."""

METRICS = {"refusal": ("refusal_rate", "Refusal rate"), "correct": ("accuracy", "Share of right answers")}


def write_card(folder: Path, report: Report) -> Path | None:
    """The path of the card written to ``folder``; None where a card of somebody else stands.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    path = folder / CARD
    if path.exists() and not (path.is_file() and MARK.encode() in path.read_bytes()):
        return None
    write_text(path, render_card(report))
    return path


def render_card(report: Report, despite: str | None = None, repository: str | None = None) -> str:
    """The card of a report: metadata as the hub reads them, then figures, limits and use.

    ``despite`` is the reason for pushing an adapter whose gate failed, and ``repository`` its name on the
    hub, where it has one.
    """
    from huggingface_hub import ModelCard

    text = TEMPLATES.get_template("card.md").render(
        report=report,
        despite=despite,
        model=display_name(report.model.name),
        backbone=hub_name(report.model.name),
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
    stated: dict[str, Any] = {"base_model": base} if (base := hub_name(name)) else {}
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
        model_name=clean(f"{display_name(name)} {standing} {', '.join(report.authorised)}"),
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
