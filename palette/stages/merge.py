"""The merge with its gate: what several adapters authorise together, and whether they may.

An adapter that Palette made lies beside its report, which says by which recipe it was measured. If
all adapters of a merge say so, the merge is measured by the same, opened for all of their domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import read_adapter
from palette.authorisation import Role
from palette.errors import AdapterError, BackboneError, OutputError, PromptError, RecipeError
from palette.evaluation.baseline import baseline_replies
from palette.files import read_json
from palette.merging import merge as merging
from palette.merging.inputs import Parent, read_parents, weighted
from palette.merging.into_weights import fuse
from palette.merging.settings import MergeSettings
from palette.merging.weight_search import weigh
from palette.progress import Progress, silent
from palette.recipe import create_recipe
from palette.reporting.report import REPORT
from palette.run import Run
from palette.stages.evaluate import evaluate_model

SHARED = ("model", "prompts", "dtype", "device", "threads", "thinking", "evaluate", "collect")
"""What the recipes of a merge's adapters must agree in."""


def merge(
    paths: Sequence[Path],
    output: Path | None = None,
    settings: MergeSettings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The result of the stage ``merge`` with its ``gate``; see ``merge_parents``.

    Raises:
        PaletteError: as ``merge_parents`` does.
    """
    settings = settings or MergeSettings()
    return merge_parents(weighted(paths, settings.weights), output, settings, progress)


def merge_parents(
    parents: Sequence[Parent],
    output: Path | None = None,
    settings: MergeSettings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The result of the stage ``merge`` with its ``gate``: the verdict, or why none could be given.

    The report is written beside the merged adapter. With ``settings.trials`` the weights are searched
    against the validation split first.

    Raises:
        RecipeError: if the settings do not fit the adapters, or weights are to be searched that
            nothing says how to measure.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
        AuthorisationError: if one adapter opens what another's recipe has put on the floor.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    settings = settings or MergeSettings()
    paths = [one.path for one in parents]
    content, reason = shared_recipe(paths)
    if settings.trials:
        if content is None or settings.weights is not None or settings.method != "weighted_sum":
            raise RecipeError(
                "weights can be searched for a weighted sum of adapters beside their reports",
                got=reason or "weights, or another method",
                remedy="leave merge.trials out",
                where="merge.trials",
            )
        weights = searched(paths, content, settings, progress)
        parents = [replace(one, weight=weight) for one, weight in zip(parents, weights, strict=True)]
    if content is not None and settings.gate:
        reason = unmeasurable(paths, content)
    result = merging.merge_parents(parents, output, settings, progress)
    if reason or not settings.gate:
        return {**result, "gate": None, "gate_not_run": reason or "merge.gate is false"}
    folder = Path(result["output"])
    report, _ = evaluate_model(content or {}, folder, progress=progress)
    return {**result, "gate": report.gate.model_dump(mode="json"), "report": str(folder / REPORT)}


def fuse_parents(
    parents: Sequence[Parent],
    backbone: Path,
    output: Path | None = None,
    settings: MergeSettings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The result of the stage ``fuse``: the merge in the weights of the backbone in a local folder.

    Raises:
        RecipeError: if the settings do not fit the adapters, or no output folder is given.
        AdapterError: if an adapter cannot be read, or does not fit the backbone.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    settings = settings or MergeSettings()
    if output is None:
        raise RecipeError(
            "a merge into weights writes a whole model", got="no folder", remedy="give --output"
        )
    weights = BackboneWeights(backbone)
    plan = merging.plan_of(read_parents(parents, weights), settings)
    dtype = settings.dtype if "dtype" in settings.model_fields_set else None
    return fuse(plan, weights, output, dtype, progress)


def shared_recipe(paths: Sequence[Path]) -> tuple[dict[str, Any] | None, str]:
    """The recipe by which all adapters together are measured; or None, and why there is none."""
    if not paths:
        return None, "there is no adapter"
    recipes = []
    for path in paths:
        beside = (path if path.is_dir() else path.parent) / REPORT
        try:
            recipes.append(without_suites(read_json(beside)["provenance"]["recipe"]))
        except (OutputError, KeyError, TypeError):
            return None, f"no report beside {path} says how it was measured"
    first = recipes[0]
    if differing := [key for key in SHARED if any(recipe.get(key) != first.get(key) for recipe in recipes)]:
        return None, f"the adapters were measured by recipes that differ in {', '.join(differing)}"
    content = {key: first[key] for key in SHARED if key in first}
    content["authorise"] = sorted({domain for recipe in recipes for domain in recipe["authorise"]})
    content["floor"] = sorted({domain for recipe in recipes for domain in recipe["floor"]})
    content["keep_replies"] = all(recipe.get("keep_replies", True) for recipe in recipes)
    content["reasons"] = {key: text for recipe in recipes for key, text in recipe["reasons"].items()}
    return content, ""


def without_suites(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the suites' results that its report holds: they are of one adapter alone."""
    evaluate = {key: value for key, value in recipe.get("evaluate", {}).items() if key != "suites"}
    return {**recipe, "evaluate": evaluate}


def unmeasurable(paths: Sequence[Path], content: Mapping[str, Any]) -> str:
    """Why the recipe cannot be run here any more; nothing if it can.

    Raises:
        AuthorisationError: if it opens what is on its floor.
    """
    run = Run(create_recipe({"name": "merge", **content}), Path())
    try:
        _ = run.authorisation
        for path in paths:
            run.require_backbone(read_adapter(path))
    except (PromptError, BackboneError, AdapterError) as error:
        return str(error)
    return ""


def searched(
    paths: Sequence[Path], content: dict[str, Any], settings: MergeSettings, progress: Progress
) -> tuple[float, ...]:
    """The weights that meet the gate's purpose best on the validation split."""
    recipe = create_recipe({"name": "merge", **content})
    run = Run(recipe, Path(), progress)
    adapters = [read_adapter(path) for path in paths]
    for adapter in adapters:
        run.require_backbone(adapter)
    baseline = baseline_replies(run, recipe.collect)
    rows = run.select("validation", *Role).capped(settings.prompts)
    return weigh(run, rows, baseline.judge, adapters, settings.trials, baseline.floor_tokens)
