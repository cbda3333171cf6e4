"""Evaluate: the same prompts with and without the adapter, judged, counted, and put to the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.errors import together
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.counting import counted, hazards, judging, over_refusal, tabulate
from palette.evaluation.gate import gate
from palette.evaluation.helpful import HelpfulReplies
from palette.evaluation.outcomes import OUTCOMES
from palette.evaluation.settings import EvaluateSettings
from palette.files import claim, read_json, require_free, write_json, write_text
from palette.fingerprints import versions
from palette.judging.calibration import find_calibration
from palette.judging.judge import Judge, judge_named
from palette.processes import Progress, silent
from palette.recipe import Recipe, create_recipe
from palette.reporting.assembly import assemble
from palette.reporting.card import write_card
from palette.reporting.curves import losses_of, students_of
from palette.reporting.pages import render
from palette.reporting.report import REPORT, Report
from palette.reporting.schema import About, Model, Provenance
from palette.reporting.sections import OptionalSections, Search
from palette.reporting.thumbnails import thumbnails
from palette.run import Run
from palette.search.findings import search_section
from palette.stages.measuring import helpful_of, measured_on
from palette.stages.sketch import sketched
from palette.suites.run import included
from palette.working import working

PAGE = Path("report.html")
OUTPUTS = (REPORT, PAGE, OUTCOMES)
LIBRARIES = ("torch", "transformers", "peft", "optuna", "safetensors", "numpy")


def read_earlier(
    settings: EvaluateSettings, folder: Path, measured: Mapping[str, str | None]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The sections of earlier suites, and the judge's measured error; ``measured`` as in ``included``.

    Raises:
        JudgeError: if the calibration is none, or that of another judge.
        OutputError: if a file is missing, or a suite's result is none, or of another backbone or adapter.
    """
    calibration = find_calibration(settings.judge, settings.calibration, folder)
    return included(settings.suites, measured), calibration


class Before(NamedTuple):
    """What there is before the backbone is asked: of each stage, its seconds too, and helpful replies."""

    search: Search | None = None
    training: Mapping[str, Sequence[float]] = {}
    students: Sequence[Mapping[str, Any]] = ()
    seconds: Mapping[str, float] = {}
    helpful: HelpfulReplies | None = None


BEFORE = Before()


def evaluate_searched(run: Run[Recipe]) -> Report:
    """The report of the adapter that the run has made, with the search behind it.

    Raises:
        PaletteError: as ``report_on`` does.
    """
    # All that can be refused is read before a reply is generated.
    adapter = read_adapter(run.folder)
    run.require_backbone(adapter)
    read_earlier(run.recipe.evaluate, run.folder, measured_of(run, adapter))
    # First, so that its model has gone before the backbone comes.
    helpful = helpful_of(run)
    baseline = baseline_replies(run)
    judge = baseline.judge_of(run.recipe.evaluate.judge)
    records = {path.parent.name: read_json(path) for path in sorted(run.folder.glob("*/stage.json"))}
    seconds = {name: record["seconds"] for name, record in records.items() if "seconds" in record}
    trained = losses_of(run.folder), students_of(run.folder)
    before = Before(search_section(run.folder), *trained, seconds, helpful)
    return report_on(run, adapter, judge, baseline.floor_tokens, before)


def measured_of(run: Run[Recipe], adapter: Adapter | None) -> dict[str, str | None]:
    """The digests of what is measured, by which results of others are told to be of the same."""
    return {"backbone": run.backbone_fingerprint, "adapter": adapter.digest if adapter else None}


def evaluate(run: Run[Recipe], adapter: Adapter | None) -> Report:
    """The report of any adapter, by a judge that learns the backbone's refusals from its own replies.

    Raises:
        PaletteError: as ``report_on`` does.
    """
    helpful = helpful_of(run)
    baseline = baseline_replies(run)
    judge = baseline.judge_of(run.recipe.evaluate.judge)
    return report_on(run, adapter, judge, baseline.floor_tokens, Before(helpful=helpful))


def evaluate_model(
    content: dict[str, Any],
    adapter: Path | str | None,
    output: Path | str | None = None,
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> tuple[Report, Path]:
    """The report of a model with any adapter, such as a merged one, and where it was written.

    ``content`` is a recipe as plain values; the folder is the adapter's, or ``output``.

    Raises:
        PaletteError: if the recipe, the prompts, the model, the adapter or the folder break a law.
    """
    adapter, output = (Path(path) if path else None for path in (adapter, output))
    mounted = read_adapter(adapter) if adapter else None
    beside = adapter if adapter is None or adapter.is_dir() else adapter.parent
    folder = output or beside or Path("runs") / f"evaluate-{'+'.join(content['authorise'])}"
    run = Run(create_recipe({"name": folder.name, **content}, overrides), folder, progress)
    owner = {"recipe": run.recipe.name} if output or not adapter else None
    if owner:
        require_free(folder, owner)
    with working(folder):
        return _evaluated(run, mounted, owner), folder


def _evaluated(run: Run[Recipe], mounted: Adapter | None, owner: Mapping[str, str] | None) -> Report:
    """The report of any adapter; the folder is claimed for its owner, or is the adapter's own."""
    errors = run.faults()
    if not errors:
        sketched(run, errors)
    if errors:
        raise together(errors)
    if mounted is not None:
        run.require_backbone(mounted)
    judge_named(run.recipe.evaluate.judge)
    read_earlier(run.recipe.evaluate, run.folder, measured_of(run, mounted))
    # Every law is checked before the folder is touched.
    if owner:
        claim(run.folder, owner)
    return evaluate(run, mounted)


def report_on(
    run: Run[Recipe], adapter: Adapter | None, judge: Judge, floor_tokens: int = 0, before: Before = BEFORE
) -> Report:
    """The report, also written as ``report.json`` and ``report.html`` into the run's folder.

    Reference answers are read here, and only here. Without an adapter the backbone is compared with
    itself. A reply to the floor is as long as the run says, or ``floor_tokens`` if refusals show later.

    Raises:
        PromptError: if the split has no prompt.
        AdapterError: if the adapter does not fit the backbone.
        JudgeError: if the calibration is none, or that of another judge.
        OutputError: if a suite's result is none, or of another backbone or adapter.
        BackboneError: if the helpful checkpoint is not there.
    """
    backbone, authorised, settings = run.backbone, run.authorisation.domains, run.recipe.evaluate
    digests = {"backbone": backbone.fingerprint, "adapter": adapter.digest if adapter else None}
    suites, calibration = read_earlier(settings, run.folder, digests)
    floor_tokens = max(run.recipe.floor_tokens, floor_tokens)
    measured = measured_on(run, adapter, judge, floor_tokens, before.helpful or helpful_of(run))
    outcomes, rows = measured.plain.outcomes, measured.requests.rows
    ids = [row.id for row in rows]
    sections = {
        "search": before.search,
        "training": before.training,
        "students": before.students,
        "wrapped": {name: counted(each) for name, each in measured.wrapped.items() if each},
        "upper_bound": measured.upper_bound,
        "judging": {
            **judging(judge, settings.judge, ids, measured.plain.verdicts, tabulate(outcomes), calibration),
            "floor_tokens": floor_tokens,
        },
        "over_refusal": over_refusal(outcomes),
        "cells": measured.cells,
        "null_control": measured.null_control,
        "hazards": hazards(outcomes, {row.id: row.hazard for row in rows}),
        "suites": suites["suites"],
        "sources": [*(source.to_json() for source in run.sources), *suites["sources"]],
    }
    model = Model(name=backbone.name, fingerprint=backbone.fingerprint)
    report = assemble(
        About(model=model, authorised=authorised, split=settings.split),
        outcomes,
        measured.moved,
        gate(outcomes, authorised, measured.moved, settings.gate, measured.wrapped),
        _provenance(run, judge, adapter, before.seconds),
        OptionalSections.model_validate(sections),
    )
    write_json(run.folder / OUTCOMES, [outcome.to_json() for outcome in outcomes])
    write_text(run.folder / PAGE, render(report, thumbnails(rows, run.prompts, run.authorisation)))
    write_json(run.folder / REPORT, report.model_dump(mode="json"))
    if adapter:
        write_card(run.folder, report)
    return report


def _provenance(
    run: Run[Recipe], judge: Judge, adapter: Adapter | None, seconds: Mapping[str, float]
) -> Provenance:
    """Backbone, prompts, floor, judge, libraries and recipe of a report."""
    return Provenance(
        recipe=run.recipe.model_dump(mode="json"),
        seeds={"run": run.seed},
        versions=versions(LIBRARIES),
        prompts={name: run.prompts.split(name).fingerprint for name in ("train", "validation", "test")},
        floor=run.authorisation.floor.digest,
        judge=judge.fingerprint,
        device=str(run.backbone.model.device),
        seconds=dict(seconds),
        adapter=adapter.digest if adapter else None,
    )
