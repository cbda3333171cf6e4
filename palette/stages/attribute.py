"""The attribute verb: which parts of a model write the refusal direction, before and after an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from palette.adapters.files import read_adapter
from palette.adapters.writing import WEIGHTS
from palette.authorisation import Role
from palette.evaluation.attribution import ATTENTION, MLP, Written, written
from palette.files import atomic, write_json
from palette.processes import Progress, silent
from palette.prompts import Prompt
from palette.search.space import read_collected, read_front
from palette.stages.load import run_of

RESULT, PICTURE = Path("attribute") / "attribution.json", Path("attribute") / "attribution.svg"
FORMAT = "palette-attribution/1"
PROMPTS = 8
"""Prompts of a domain and kind at most."""
SIDES = ("base", "adapted")


def attribute(
    folder: Path | str, output: Path | str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What each layer, head and MLP writes along the refusal direction, by domain and kind, with a drawing.

    The direction is the chosen trial's, at its position; 1 is the distance between the means of target
    and benign prompts along it at its site. ``attribute/`` in the run's folder, or in ``output``, gets both.

    Raises:
        OutputError: if the run has no report or no search, or the files cannot be written.
        BackboneError: if TransformerLens is missing, or does not know the model.
        AdapterError: if the adapter is of another backbone.
    """
    folder = Path(folder)
    report, run = run_of(folder, progress)
    chosen, *_ = read_front(folder)
    adapter = read_adapter(folder) if (folder / WEIGHTS).is_file() else None
    if adapter is not None:
        run.require_backbone(adapter)
    directions, place = read_collected(folder).directions, chosen.intervention
    peak, position = place.kernel.peak, place.position
    r = directions.unit(peak, position, place.direction).double()
    gap = float(directions.difference[peak, position] @ r)
    split: Any = report.split
    rows = run.prompts.split(split).capped(run.recipe.at_most(PROMPTS))

    def label(row: Prompt) -> tuple[str, str]:
        return row.domain, "floor" if run.authorisation.role(row) is Role.FLOOR else row.kind

    groups = sorted({label(row) for row in rows})
    sides = dict(zip(SIDES, (None, adapter), strict=True)) if adapter else {SIDES[0]: None}
    domains: dict[str, dict[str, Any]] = {}
    with progress("attribute", len(sides) * len(rows)) as advance:
        for domain, kind in groups:
            asked = [row for row in rows if label(row) == (domain, kind)]
            prompts = run.render(asked)
            found = {
                side: written(run.backbone, prompts, r, position, mounted, advance).scaled(gap)
                for side, mounted in sides.items()
            }
            shown = {side: {**each.model_dump(), "total": each.total} for side, each in found.items()}
            domains.setdefault(domain, {})[kind] = {"n": len(asked), **shown, "moved": moved(*found.values())}
    result = {
        "format": FORMAT,
        "run": str(folder),
        "adapter": adapter.digest if adapter else None,
        "direction": {"trial": chosen.trial, "name": place.direction, "site": peak, "position": position},
        "unit": gap,
        "domains": domains,
    }
    there = Path(output or folder)
    write_json(there / RESULT, result)
    draw(domains, there / PICTURE)
    return {**result, "file": str(there / RESULT), "picture": str(there / PICTURE)}


def draw(domains: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws what each block writes for each domain and kind, a heat map a side, and the change.

    Raises:
        OutputError: if the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "palette"
    named = [(f"{domain} · {kind}", kinds[kind]) for domain, kinds in domains.items() for kind in kinds]
    panels = {
        side: np.array([interleaved(Written(**found[side])) for _, found in named])
        for side in SIDES
        if side in named[0][1]
    }
    if len(panels) == len(SIDES):
        panels["change"] = panels["adapted"] - panels["base"]
    columns = next(iter(panels.values())).shape[1]
    largest = max(float(np.abs(panels[side]).max()) for side in panels if side in SIDES) or 1.0
    size = (2.0 + len(panels) * (0.6 + 0.22 * columns), 1.2 + 0.28 * len(named))
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, (side, values) in zip(axes[0], panels.items(), strict=True):
        # What an adapter changes is little beside what there is, and has a scale of its own.
        most = largest if side in SIDES else float(np.abs(values).max()) or 1.0
        image = axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        axis.set_title(f"{side}, ±{most:.2g}", fontsize=10, loc="left")
        axis.set_xticks(range(0, columns, 2), [str(layer) for layer in range(columns // 2)], fontsize=8)
        axis.set_xlabel("layer: attention, MLP", fontsize=8)
    axes[0][0].set_yticks(range(len(named)), [label for label, _ in named], fontsize=8)
    bar = figure.colorbar(image, ax=axes[0].tolist(), label="share of the target–benign distance")
    bar.set_ticks([-most, 0.0, most], labels=["−", "0", "+"])
    with atomic(path) as staged:
        figure.savefig(staged, format="svg", metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def moved(base: Written, adapted: Written | None = None) -> dict[str, Any]:
    """The hook whose part the adapter changed most, and by how much; of a backbone alone the largest part."""
    parts = interleaved(adapted or base)
    before = interleaved(base) if adapted else [0.0] * len(parts)
    changes = [after - each for after, each in zip(parts, before, strict=True)]
    most = max(range(len(changes)), key=lambda place: abs(changes[place]))
    return {"hook": (ATTENTION, MLP)[most % 2].format(most // 2), "by": changes[most]}


def interleaved(parts: Written) -> list[float]:
    """What each block's attention and MLP write, in the order in which they run."""
    return [value for pair in zip(parts.attention, parts.mlp, strict=True) for value in pair]
