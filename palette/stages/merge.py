"""The merge with its gate: what several adapters authorise together, and whether they may.

An adapter that Palette made lies beside its report, which says by which recipe it was measured. If
all adapters of a merge say so, the merge is measured by the same, opened for all of their domains (where
prompts differ, by those that hold all the others: one of words and pictures for an adapter of words),
and its weights can be searched on the validation split; reference answers are not read for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import greedy_replies, reply_logits
from palette.errors import AdapterError, BackboneError, OutputError, PaletteError, PromptError, RecipeError
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.settings import EvaluateSettings, GateSettings
from palette.evaluation.subjects import divergence
from palette.files import read_json
from palette.judging.rules import RuleJudge
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from palette.merging.settings import MergeSettings, merge_settings
from palette.merging.writing import MergeReport, merge_adapters
from palette.processes import Progress, silent
from palette.prompts import Prompt
from palette.recipe import Recipe, create_recipe
from palette.reporting.report import REPORT
from palette.run import Run
from palette.search.choice import choose
from palette.search.space import Params, Real, Scored
from palette.search.study import StudyPlan, run_study
from palette.stages.evaluate import evaluate_model

SHARED = (
    *("model", "prompts", "dtype", "device", "device_map", "threads", "thinking", "system", "evaluate"),
    *("limit", "reply_tokens", "floor_tokens", "memory_gib"),
)
"""What the recipes of a merge's adapters must agree in."""

PROMPTS = 16
"""Prompts at most, a domain, kind and tier, of a trial."""

HEAVIEST = 1.5
ALIKE = (1.0, 1.1, 1.2, 1.3, 0.9)
"""Weights that all adapters have in the first trials: what many leave mostly makes all of them weaker."""


def merge(
    adapters: Sequence[Path | str] | MergeSettings,
    output: Path | str | None = None,
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
        run, members = run_of(content, progress), [read_adapter(path) for path in paths]
        for adapter in members:
            run.require_backbone(adapter)
        plain = baseline_replies(run)
        weights = search_weights(run, plain.judge, members, settings.trials, plain.floor_tokens)
        settings = settings.model_copy(update={"weights": weights})
    if content is not None and settings.gate:
        reason = unmeasurable(paths, content)
    report = merge_adapters(settings, Path(output) if output else None, progress)
    if content is None or reason or not settings.gate:
        return report.model_copy(update={"gate": None, "gate_not_run": reason or "merge.gate is false"})
    folder = Path(report.output)
    measured, _ = evaluate_model(content, folder, progress=progress)
    return report.model_copy(
        update={"gate": measured.gate.model_dump(mode="json"), "report": str(folder / REPORT)}
    )


def shared_recipe(paths: Sequence[Path]) -> tuple[dict[str, Any] | None, str]:
    """The recipe by which all adapters together are measured; or None, and why there is none."""
    recipes = []
    for path in paths:
        try:
            recipe = read_json((path if path.is_dir() else path.parent) / REPORT)["provenance"]["recipe"]
            # Recipes that were written before there could be a system prompt had none.
            recipes.append({"system": "", **recipe, "evaluate": known_settings(recipe.get("evaluate", {}))})
        except (OutputError, KeyError, TypeError):
            return None, f"no report beside {path} says how it was measured"
    first = recipes[0]
    differing = [key for key in SHARED if any(recipe.get(key) != first.get(key) for recipe in recipes)]
    if differing == ["prompts"] and (widest := of_widest_prompts(recipes)) is not None:
        first, differing = widest, []
    if differing:
        return None, f"the adapters were measured by recipes that differ in {', '.join(differing)}"
    content = {key: first[key] for key in SHARED if key in first}
    for key in ("authorise", "floor"):
        content[key] = sorted({domain for recipe in recipes for domain in recipe[key]})
    content["keep_replies"] = all(recipe.get("keep_replies", True) for recipe in recipes)
    content["reasons"] = {key: text for recipe in recipes for key, text in recipe["reasons"].items()}
    return content, ""


def of_widest_prompts(recipes: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The recipe whose measured split holds all prompts of the others', if there is one."""
    try:
        runs = [
            run_of({key: recipe[key] for key in (*SHARED, "authorise") if key in recipe})
            for recipe in recipes
        ]
        asked = [{*run.prompts.split(run.recipe.evaluate.split)} for run in runs]
    except PaletteError:  # What cannot be read any more holds nothing.
        return None
    every = set[Prompt]().union(*asked)
    return next((recipe for recipe, own in zip(recipes, asked, strict=True) if own == every), None)


def known_settings(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """What a report's recipe says of the evaluation, as far as there still is an option for it.

    Without the suites' results that the report holds: they are of one adapter alone.
    """
    kept = [key for key in EvaluateSettings.model_fields if key in evaluate and key != "suites"]
    gate = {key: evaluate.get("gate", {}).get(key) for key in GateSettings.model_fields}
    limits = {key: limit for key, limit in gate.items() if limit is not None}
    return {**{key: evaluate[key] for key in kept}, "gate": limits}


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


def run_of(content: Mapping[str, Any], progress: Progress = silent) -> Run[Recipe]:
    """The run by which a merge is measured; it writes nothing."""
    return Run(create_recipe({"name": "merge", **content}), Path(), progress)


def search_weights(
    run: Run, judge: RuleJudge, adapters: Sequence[Adapter], trials: int, tokens: int, prompts: int = PROMPTS
) -> tuple[float, ...]:
    """One weight in [0, 1.5] for each adapter: of the trials' the one whose worst domain is best.

    A trial is worth the largest share, over domains, of authorised prompts still refused, of refusals
    lost elsewhere and of new refusals of benign prompts, beside which benign divergence in nats stands
    as it is; their mean decides between equals. The first trial adds the adapters as they are, the next
    ones all of them at one weight. Replies are ``tokens`` long, enough to tell a refusal.
    """
    backbone, rows = run.backbone, run.select("validation", *Role).capped(prompts)
    rendered = run.render(rows)
    roles = [run.authorisation.role(row) for row in rows]
    cells: dict[tuple[Role, str], list[int]] = {}
    for i, (row, role) in enumerate(zip(rows, roles, strict=True)):
        cells.setdefault((role, row.domain), []).append(i)

    def refused(replies: Sequence[list[int]]) -> list[bool]:
        texts = [backbone.decode(reply) for reply in replies]
        return [verdict.label.refused for verdict in judge.verdicts(rows.requests, texts)]

    plain_replies = greedy_replies(backbone, rendered, tokens)
    before = refused(plain_replies)
    benign = [i for i, role in enumerate(roles) if role is Role.BENIGN]
    asked = [rendered[i] for i in benign]
    replies = [[*plain_replies[i], backbone.stops[0]] for i in benign]
    plain = reply_logits(backbone, asked, replies)
    names = [f"weight {i}" for i in range(len(adapters))]

    def score(params: Params) -> Scored:
        inputs = [MergeInput(a, params[name]) for a, name in zip(adapters, names, strict=True)]
        with mounted(backbone.model, combine(inputs)[0]):
            after = refused(greedy_replies(backbone, rendered, tokens))
            moved = reply_logits(backbone, asked, replies)
        bad = [*shares(cells, before, after), divergence(plain, moved)["multi_token"]]
        return Scored((max(bad) + 0.01 * sum(bad) / len(bad),), {})

    with TemporaryDirectory() as folder, run.progress("weights", trials) as advance:
        plan = StudyPlan(
            Path(folder) / "study.journal",
            dict.fromkeys(names, Real(0.0, HEAVIEST)),
            {"worst": "minimize"},
            "weights",
            trials,
            run.seed,
            enqueue=tuple(dict.fromkeys(names, weight) for weight in ALIKE[:trials]),
        )
        best = choose(run_study(plan, score, advance), plan.objectives)[0]
    return tuple(round(float(best.params[name]), 4) for name in names)


def shares(
    cells: Mapping[tuple[Role, str], Sequence[int]], before: Sequence[bool], after: Sequence[bool]
) -> list[float]:
    """For each role and domain the share of prompts for which the adapters do the wrong thing."""

    def wrong(role: Role, i: int) -> bool:
        if role is Role.TARGET:
            return after[i]
        return after[i] and not before[i] if role is Role.BENIGN else before[i] and not after[i]

    return [sum(wrong(role, i) for i in rows) / len(rows) for (role, _), rows in sorted(cells.items())]
