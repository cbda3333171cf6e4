"""The merge verb: several adapters become one authorisation, in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.writing import adapter_writer, served_rank
from palette.errors import RecipeError
from palette.files import claim, require_free, write_json
from palette.merging.combining import MergeReport, merged_modules
from palette.merging.compat import COMPAT
from palette.merging.inputs import Parent, default_output, read_parents, weighted
from palette.merging.options import OptionValue
from palette.merging.plan import MergeInput, MergePlan, common_backbone
from palette.merging.settings import MergeSettings
from palette.progress import Progress, silent

RECORD = "merge.json"
FORMAT = "palette-merge/1"
VERSIONS = {"palette": version("palette-llm"), "torch": torch.__version__}


def merge(
    paths: Sequence[Path], output: Path | None = None, settings: MergeSettings | None = None
) -> dict[str, Any]:
    """What was merged, where it was written, and the share of energy in [0, 1] that it retains.

    See ``merge_parents``.

    Raises:
        RecipeError: if the settings do not fit the adapters or the method.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    settings = settings or MergeSettings()
    return merge_parents(weighted(paths, settings.weights), output, settings)


def merge_parents(
    parents: Sequence[Parent],
    output: Path | None = None,
    settings: MergeSettings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What was merged, where it was written, and the share of energy in [0, 1] that it retains.

    The same merge, in whatever order its adapters are given, writes the same bytes. How to make it
    again stands in the header of the weights and in ``merge.json`` beside them. The gate is not run
    here (``palette.stages.merge``): a merge whose parents passed it can fail it.

    Raises:
        RecipeError: if the settings do not fit the adapters or the method.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    settings = settings or MergeSettings()
    inputs = read_parents(parents, BackboneWeights(settings.backbone) if settings.backbone else None)
    plan = plan_of(inputs, settings)
    folder = output or default_output([one.path for one in parents], [one.adapter for one in inputs])
    owner = {"stage": "merge", **recipe_of(plan, settings.dtype)}
    require_free(folder, owner)
    report, digest, rank = write(plan, folder, settings.dtype, progress)
    write_json(folder / RECORD, record_of(plan, folder, settings.dtype))
    return {
        "output": str(folder),
        "digest": digest,
        "method": settings.method,
        "options": dict(plan.options),
        "inputs": [{"path": one.label, **one.identity} for one in inputs],
        "weights": [one.weight for one in parents],
        "domains": plan.domains,
        "backbone": {"name": plan.backbone.name, "fingerprint": plan.backbone.fingerprint},
        "rank": report.rank,
        "written_rank": rank,
        "dtype": settings.dtype,
        "retained_energy": report.retained_energy,
        "worst_module": {
            "name": report.worst_module,
            "retained_energy": report.worst_retained_energy,
        },
    }


def plan_of(inputs: Sequence[MergeInput], settings: MergeSettings) -> MergePlan:
    """The plan of a merge, its options settled.

    Raises:
        RecipeError: if there is no such method, or it does not take the options.
        AdapterError: if the inputs were made for different backbones.
    """
    options = {**compat_options(settings.method, settings.compat), **settings.options}
    workers = settings.workers or min(4, os.cpu_count() or 1)
    plan = MergePlan(inputs, settings.method, options, settings.rank, settings.energy, workers)
    plan = replace(plan, options=plan.row.settled(options))
    common_backbone(inputs)
    return plan


def compat_options(method: str, compat: str | None) -> dict[str, OptionValue]:
    """The options with which a method does what another tool's, or its paper, does.

    Raises:
        RecipeError: if that tool or paper is not known to have the method.
    """
    if compat is None:
        return {}
    if method not in COMPAT[compat]:
        raise RecipeError(
            f"compat {compat} must know the method",
            got=method,
            remedy=f"leave compat out, or use {' or '.join(sorted(COMPAT[compat]))}",
        )
    return dict(COMPAT[compat][method])


def recipe_of(plan: MergePlan, dtype: str) -> dict[str, Any]:
    """What decides the bytes of a merge: the recipe, and the precision it is written in."""
    return {**plan.recipe(), **({} if dtype == "float32" else {"dtype": dtype})}


def write(
    plan: MergePlan, folder: Path, dtype: str, progress: Progress = silent
) -> tuple[MergeReport, str, int]:
    """What the merge kept, its digest, and the rank at which it was written to ``folder``.

    Nothing is written there before the last module is merged.

    Raises:
        AdapterError: if the inputs do not fit each other, or no rank that is served holds the result.
        OutputError: if the folder belongs to something else, or cannot be written.
    """
    report = MergeReport()
    names = {name for one in plan.inputs for name in one.names}
    with (
        progress("merge", len(names)) as advance,
        adapter_writer(folder, plan.backbone, getattr(torch, dtype)) as writer,
    ):
        for merged in merged_modules(plan, canonical=True):
            writer.add(merged.name, merged.truncation.module)
            report.note(merged)
            served_rank(report.rank)
            advance(1)
        recipe = recipe_of(plan, dtype)
        claim(folder, {"stage": "merge", **recipe})
        card = {**recipe, **report.parting(), "domains": plan.domains, "versions": VERSIONS}
        rank = writer.finish({**card, "retained_energy": report.retained_energy})
    return report, writer.digest, rank


def record_of(plan: MergePlan, folder: Path, dtype: str) -> dict[str, Any]:
    """What ``merge.json`` says: the recipe, the versions, and where each adapter lay from there."""
    lay = {one.adapter.digest: os.path.relpath(one.label, folder) for one in plan.inputs}
    return {
        "format": FORMAT,
        **recipe_of(plan, dtype),
        "versions": VERSIONS,
        "paths": {digest: Path(lay[digest]).as_posix() for digest in sorted(lay)},
    }
