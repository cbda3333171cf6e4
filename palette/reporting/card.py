"""The model card: README.md beside an adapter, written from its report and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.files import write_text
from palette.reporting.card_text import backbone_name, clean, is_on_hub, text_of
from palette.reporting.markup import Json

CARD = "README.md"
MARK = "<!-- Written by Palette from report.json; evaluate and push write it anew. -->"
"""Tells our card from one that somebody else wrote, which is left alone."""

KINDS = {
    "restricted": "restricted prompts",
    "floor": "floor prompts",
    "benign": "benign prompts",
}
METRICS = {"refusal": ("refusal_rate", "Refusal rate"), "correct": ("accuracy", "Share of right answers")}


def write_card(folder: Path, report: Json, despite: str | None = None) -> Path | None:
    """The path of the card written to ``folder``; None where a card of somebody else stands.

    ``despite`` is the reason for pushing an adapter whose gate failed; the card records it.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    path = folder / CARD
    if path.exists() and not ours(path):
        return None
    write_text(path, render_card(report, despite))
    return path


def ours(path: Path) -> bool:
    """Whether Palette wrote the card at ``path``."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def render_card(report: Json, despite: str | None = None) -> str:
    """The card of a valid report: metadata as the hub reads them, then figures, limits and use."""
    from huggingface_hub import ModelCard

    data = metadata(report, despite)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{MARK}\n\n{text_of(report, despite)}")
    return str(card).rstrip() + "\n"


def metadata(report: Json, despite: str | None = None) -> Any:
    """The card's metadata as ``huggingface_hub`` has them; every name in them is cleaned."""
    from huggingface_hub import ModelCardData

    source = report["provenance"]
    facts = {
        "format": report["format"],
        "authorised": [clean(name) for name in report["authorised"]],
        "gate": "passed" if report["gate"]["passed"] else "failed",
        "backbone": clean(report["model"]["fingerprint"]),
        "adapter": clean(source.get("adapter") or "none"),
        "floor": clean(source["floor"]),
        "judge": clean(source["judge"]),
    }
    if despite is not None:
        facts["despite_failed_gate"] = clean(despite)
    stated: dict[str, Any] = {**base_of(report), **licence_of(report)}
    return ModelCardData(
        **stated,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["palette", "lora", "peft", "refusal", "safety"],
        model_name=clean(f"{backbone_name(report)} authorised for {', '.join(report['authorised'])}"),
        eval_results=results(report),
        palette=facts,
    )


def base_of(report: Json) -> dict[str, str]:
    """The backbone as the hub names models; nothing for a folder of this machine."""
    name = str(report["model"]["name"])
    return {"base_model": name} if is_on_hub(name) else {}


def licence_of(report: Json) -> dict[str, str]:
    """The licence: ours for the shipped organism; an adapter of another model follows that model's."""
    if str(report["model"]["name"]).partition("/")[0] == "organism":
        return {"license": "apache-2.0"}
    return {"license": "other", "license_name": "as-the-backbone"}


def results(report: Json) -> list[Any]:
    """The rates with the adapter as entries of the hub's model index, in per cent of replies."""
    from huggingface_hub import EvalResult

    found = []
    for domain, kinds in report["adapted"]["domains"].items():
        for kind, cell in kinds.items():
            for measure, (metric, words) in METRICS.items():
                if cell.get(measure):
                    found.append(
                        EvalResult(
                            task_type="text-generation",
                            dataset_type="palette-prompts",
                            dataset_name=f"{clean(domain)}, {KINDS[kind]}",
                            dataset_config=f"{clean(domain)}/{kind}",
                            dataset_split=clean(report["split"]),
                            metric_type=metric,
                            metric_name=words,
                            metric_value=round(cell[measure]["rate"] * 100, 2),
                        )
                    )
    return found
