"""The merge with its gate: what several adapters authorise together, and whether they may.

An adapter that Palette made lies beside its report, which says by which recipe it was measured. If
all adapters of a merge say so, the merge is measured by the same, opened for all of their domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import read_adapter
from palette.errors import AdapterError, BackboneError, OutputError, PromptError, RecipeError
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.settings import EvaluateSettings, GateSettings
from palette.files import read_json
from palette.merging.settings import MergeSettings, merge_settings
from palette.merging.weight_search import search_weights
from palette.merging.writing import MergeReport, merge_adapters, planned, write_into
from palette.processes import Progress, silent
from palette.recipe import Recipe, create_recipe
from palette.reporting.report import REPORT
from palette.run import Run
from palette.stages.evaluate import evaluate_model

SHARED = (
    *("model", "prompts", "dtype", "device", "threads", "thinking", "evaluate"),
    *("limit", "reply_tokens", "floor_tokens", "memory_gib"),
)
"""What the recipes of a merge's adapters must agree in."""


def merge(
    adapters: Sequence[Path | str] | MergeSettings,
    output: Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> MergeReport:
    """What was merged, with the gate's verdict on it, or why none could be given.

    ``options`` are those of ``MergeSettings``, where that is not given whole. The report of the gate is
    written beside the merged adapter. With ``trials`` the weights are searched against the validation
    split first.

    Raises:
        RecipeError: if the settings do not fit the adapters, or weights are to be searched that
            nothing says how to measure.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
        AuthorisationError: if one adapter opens what another's recipe has put on the floor.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    settings = adapters if isinstance(adapters, MergeSettings) else merge_settings(adapters, options)
    paths = [source.path for source in settings.sources]
    content, reason = shared_recipe(paths)
    if settings.trials:
        if content is None or settings.weights is not None or settings.method != "weighted_sum":
            raise RecipeError(
                "weights can be searched for a weighted sum of adapters beside their reports",
                got=reason or "weights, or another method",
                remedy="leave merge.trials out",
                where="merge.trials",
            )
        weights = searched_weights(paths, content, settings.trials, progress)
        settings = settings.model_copy(update={"weights": weights})
    if content is not None and settings.gate:
        reason = unmeasurable(paths, content)
    report = merge_adapters(settings, output, progress)
    if content is None or reason or not settings.gate:
        return report.model_copy(update={"gate": None, "gate_not_run": reason or "merge.gate is false"})
    folder = Path(report.output)
    measured, _ = evaluate_model(content, folder, progress=progress)
    return report.model_copy(
        update={"gate": measured.gate.model_dump(mode="json"), "report": str(folder / REPORT)}
    )


def merge_into(
    settings: MergeSettings, backbone: Path, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What was written: the merge in the weights of the backbone in a local folder.

    Raises:
        RecipeError: if the settings do not fit the adapters, or no output folder is given.
        AdapterError: if an adapter cannot be read, or does not fit the backbone.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    if output is None:
        raise RecipeError(
            "a merge into weights writes a whole model", got="no folder", remedy="give --output"
        )
    weights = BackboneWeights(backbone)
    dtype = settings.dtype if "dtype" in settings.model_fields_set else None
    return write_into(planned(settings, weights), weights, output, dtype, progress)


def shared_recipe(paths: Sequence[Path]) -> tuple[dict[str, Any] | None, str]:
    """The recipe by which all adapters together are measured; or None, and why there is none."""
    recipes = []
    for path in paths:
        beside = (path if path.is_dir() else path.parent) / REPORT
        try:
            recipes.append(measuring(read_json(beside)["provenance"]["recipe"]))
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


def measuring(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a report's recipe says of how it was measured, as far as there still is an option for it.

    Without the suites' results that the report holds: they are of one adapter alone.
    """
    evaluate = dict(recipe.get("evaluate", {}))
    evaluate["gate"] = {key: evaluate.get("gate", {}).get(key) for key in GateSettings.model_fields}
    evaluate["gate"] = {key: limit for key, limit in evaluate["gate"].items() if limit is not None}
    kept = {key: evaluate[key] for key in EvaluateSettings.model_fields if key in evaluate}
    return {**recipe, "evaluate": {key: value for key, value in kept.items() if key != "suites"}}


def unmeasurable(paths: Sequence[Path], content: Mapping[str, Any]) -> str:
    """Why the recipe cannot be run here any more; nothing if it can.

    Raises:
        AuthorisationError: if it opens what is on its floor.
    """
    try:
        run = run_of(content)
        _ = run.authorisation
        for path in paths:
            run.require_backbone(read_adapter(path))
    except (RecipeError, PromptError, BackboneError, AdapterError) as error:
        return str(error)
    return ""


def searched_weights(
    paths: Sequence[Path], content: Mapping[str, Any], trials: int, progress: Progress
) -> tuple[float, ...]:
    """The weights that meet the gate's purpose best on the validation split."""
    run = run_of(content, progress)
    adapters = [read_adapter(path) for path in paths]
    for adapter in adapters:
        run.require_backbone(adapter)
    baseline = baseline_replies(run)
    return search_weights(run, baseline.judge, adapters, trials, baseline.floor_tokens)


def run_of(content: Mapping[str, Any], progress: Progress = silent) -> Run[Recipe]:
    """The run by which a merge is measured; it writes nothing."""
    return Run(create_recipe({"name": "merge", **content}), Path(), progress)
