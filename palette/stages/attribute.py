"""The attribute verb: which parts of a model write the refusal direction, before and after an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palette.adapters.files import read_adapter
from palette.adapters.writing import WEIGHTS
from palette.authorisation import Role
from palette.backbones.hook_points import ATTENTION, MLP
from palette.errors import RecipeError
from palette.evaluation.attribution import Written, written
from palette.files import write_json
from palette.processes import Progress, silent
from palette.prompts import Prompt
from palette.reporting.heat_maps import HeatMap, draw_heat_maps, scale
from palette.search.space import read_collected, read_front
from palette.stages.load import run_of
from palette.stages.patching import patch

RESULT, PICTURE = Path("attribute") / "attribution.json", Path("attribute") / "attribution.svg"
FORMAT = "palette-attribution/1"
PROMPTS = 8
"""Prompts of a domain and kind at most."""
SIDES = ("base", "adapted")


def attribute(
    folder: Path | str,
    output: Path | str | None = None,
    progress: Progress = silent,
    *,
    patching: bool = False,
    ids: Sequence[str] = (),
) -> dict[str, Any]:
    """What each layer, head and MLP writes along the refusal direction, by domain and kind, with a drawing.

    The direction is the chosen trial's, at its position; 1 is the distance between the means of target
    and benign prompts along it at its site. ``attribute/`` in the run's folder, or in ``output``, gets both.

    With ``patching`` it is instead what each of them carries of the refusal score from prompt to prompt, and
    from the adapter to the backbone, on the prompts named by ``ids`` or a few of each domain.

    Raises:
        OutputError: if the run has no report or no search, or the files cannot be written.
        BackboneError: if TransformerLens is missing, or does not know the model; or a part of a block
            cannot be patched.
        AdapterError: if the adapter is of another backbone.
        PromptError: if an id is none of the run's.
        RecipeError: if ids are given without ``patching``.
    """
    if patching:
        return patch(folder, output, ids, progress)
    if ids:
        raise RecipeError(
            "ids choose the prompts of activation patching", got="no --patching", remedy="give it too"
        )
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
    groups: dict[tuple[str, str], list[Prompt]] = {}
    for row in (rows := run.prompts.split(split).capped(run.recipe.at_most(PROMPTS))):
        kind: str = "floor" if run.authorisation.role(row) is Role.FLOOR else row.kind
        groups.setdefault((row.domain, kind), []).append(row)
    sides = dict(zip(SIDES, (None, adapter), strict=True)) if adapter else {SIDES[0]: None}
    domains: dict[str, dict[str, Any]] = {}
    with progress("attribute", len(sides) * len(rows)) as advance:
        for (domain, kind), asked in sorted(groups.items()):
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
    named = [(f"{domain} · {kind}", kinds[kind]) for domain, kinds in domains.items() for kind in kinds]
    panels = {
        side: np.array([interleaved(Written(**found[side])) for _, found in named])
        for side in SIDES
        if side in named[0][1]
    }
    largest = scale(np.array([*panels.values()]))
    maps = [HeatMap(side, values, largest) for side, values in panels.items()]
    if len(panels) == len(SIDES):
        # What an adapter changes is little beside what there is, and has a scale of its own.
        change = panels["adapted"] - panels["base"]
        maps.append(HeatMap("change", change, scale(change)))
    draw_heat_maps(maps, [label for label, _ in named], "share of the target–benign distance", path)


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
