"""The export verb: a run's adapter, or the direction that it found, in the file of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.adapters.exporting import LayerVectors, write_control_vector, write_gguf_adapter
from palette.adapters.files import read_adapter
from palette.directions import Directions, Intervention
from palette.errors import AdapterError, RecipeError
from palette.files import read_json, write_tensors
from palette.models import identify
from palette.reporting.report import REPORT, read_report
from palette.run import folder_of
from palette.search.space import read_collected, read_front

FORMATS = {
    "gguf": "adapter.gguf",
    "control-vector": "control_vector.gguf",
    "steering-vector": "steering_vector.safetensors",
}
"""What is written, by format."""


def export(
    run: Path | str, to: str = "gguf", output: Path | str | None = None, model: str | None = None
) -> dict[str, Any]:
    """What was written, and where, for a run's folder: beside its adapter, or into the folder ``output``.

    ``gguf`` is the adapter, for llama.cpp. ``control-vector``, for llama.cpp and repeng, and
    ``steering-vector`` are the refusal direction of the chosen trial (``layer_vectors``), which moves
    every refusal of the plain model, not those of one domain. ``model`` names the backbone of an adapter
    that has no report.

    Raises:
        RecipeError: if there is no such format.
        OutputError: if the run has no report and no model is named, no search, or the file cannot be written.
        BackboneError: if the model is not there, or of a family that the format has not.
        AdapterError: if there is no adapter, or it is of another backbone.
    """
    from palette.backbones.gguf import gguf_names

    folder = Path(run)
    if to not in FORMATS:
        raise RecipeError(f"a format must be one of {', '.join(FORMATS)}", got=repr(to))
    gate = read_report(folder).gate.passed if (folder / REPORT).is_file() else None
    backbone = folder_of(model or str(read_report(folder).provenance.recipe["model"]))
    path = Path(output or folder) / FORMATS[to]
    result: dict[str, Any] = {"format": to, "file": str(path), "gate_passed": gate}
    if to == "gguf":
        adapter, names = read_adapter(folder), gguf_names(backbone)
        stated = adapter.backbone.fingerprint
        if stated is not None and stated != identify(backbone):
            raise AdapterError(
                "an adapter must be written for the backbone that it was made for",
                got=f"one for {adapter.backbone.name} ({stated[:12]})",
                remedy="name it with --model",
                where=backbone,
            )
        rank = write_gguf_adapter(path, adapter, names)
        return {**result, "architecture": names.architecture, "modules": len(adapter.modules), "rank": rank}
    chosen = read_front(folder)[0]
    vectors = layer_vectors(read_collected(folder).directions, chosen.intervention)
    kind = str(read_json(backbone / "config.json").get("model_type"))
    if to == "control-vector":
        write_control_vector(path, vectors, kind)
        vectors = {layer: row for layer, row in vectors.items() if layer}
    else:
        # By block: ``layer_activations`` of a ``SteeringVector``.
        rows = {str(layer): row.float() for layer, row in vectors.items()}
        write_tensors(path, rows, {"model_type": kind, "layer_type": "decoder_block"})
    lengths = {layer: float(row.norm()) for layer, row in vectors.items()}
    return {**result, "model_type": kind, "trial": chosen.trial, "lengths": lengths}


def layer_vectors(directions: Directions, intervention: Intervention) -> LayerVectors:
    """((m − μ)·r) r at the output of each block: r the intervention's direction, m and μ the two means there.

    Added with weight −1 it moves the target prompts' mean onto the benign one's along r, which is
    ``activation_addition`` with strength 1; with weight 1 the other way.
    """
    at, name = intervention.position, intervention.direction
    r = directions.unit(intervention.kernel.peak, at, name)
    gaps = directions.difference[:, at] @ r
    # A site is the output of the block before it.
    return {site - 1: gaps[site] * r for site in range(1, len(gaps))}
