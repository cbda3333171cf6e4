"""Evaluate: the same prompts with and without the adapter, judged, counted, and put to the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.backbones import Backbone, load_backbone
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.gate import gate
from palette.evaluation.judge_error import judging
from palette.evaluation.outcomes import Outcome, counted, hazards, over_refusal, tabulate
from palette.evaluation.provenance import Context, provenance, searched
from palette.evaluation.replies import Answers, Asked, Lengths, Replies, answers
from palette.evaluation.settings import EvaluateSettings
from palette.evaluation.verdicts import Judged, judged
from palette.evaluation.wrappers import WRAPPERS
from palette.evaluation.wrapping import wrap
from palette.files import claim, read_json, write_json, write_text
from palette.judging.calibration import find_calibration
from palette.judging.judge import Judge
from palette.judging.registry import judge_named
from palette.progress import Progress, silent
from palette.prompts import PromptSet
from palette.recipe import Recipe, create_recipe
from palette.reporting.card import write_card
from palette.reporting.pages import render
from palette.reporting.report import REPORT, Report, assemble
from palette.reporting.schema import About, Model, OptionalSections, UpperBound
from palette.run import Run
from palette.search.collected import read_collected
from palette.search.front import FRONT, read_front
from palette.suites.report import included

PAGE = Path("report.html")
OUTCOMES = Path("evaluate") / "outcomes.json"
TIMING = Path("evaluate") / "timing.json"
RECORD = "stage.json"
"""In a stage's folder: what it was run on, what it gave, and how long it took."""


@dataclass(frozen=True)
class Earlier:
    """What was measured before and stands in the report."""

    suites: Mapping[str, Any]
    """The sections ``suites`` and ``sources`` of the suites' results."""
    calibration: Mapping[str, Any] | None
    """The judge's measured error."""


def read_earlier(settings: EvaluateSettings, folder: Path, measured: Mapping[str, str | None]) -> Earlier:
    """What was measured before, of the run in a folder; ``measured`` as in ``included``.

    Raises:
        JudgeError: if the calibration is none, or that of another judge.
        OutputError: if a file is missing, or a suite's result is none, or of another backbone or adapter.
    """
    calibration = find_calibration(settings.judge, settings.calibration, folder)
    return Earlier(included(settings.suites, measured), calibration)


def evaluate_searched(run: Run[Recipe]) -> Report:
    """The report of the adapter that the run has made, with the search behind it.

    Raises:
        PaletteError: as ``measured`` does.
    """
    collected, recipe = read_collected(run.folder), run.recipe
    records = {path.parent.name: read_json(path) for path in sorted(run.folder.glob(f"*/{RECORD}"))}
    context = Context(
        recipe=recipe.model_dump(mode="json"),
        seconds={name: record["seconds"] for name, record in records.items() if "seconds" in record},
        front=read_front(run.folder),
        audit=read_json(run.folder / FRONT)["audit"],
        separation=collected.separations.get("difference"),
        collected=collected.counts,
        upper_bound=upper_bound(recipe.model),
        sources=run.sources,
    )
    judge = judge_named(recipe.evaluate.judge, collected.judge_prefixes)
    settings = recipe.evaluate.showing(collected.floor_tokens)
    return measured(run, settings, judge, read_adapter(run.folder), context)


def evaluate(run: Run[Recipe], adapter: Adapter | None) -> Report:
    """The report of any adapter, by a judge that learns the backbone's refusals from its own replies.

    Raises:
        PaletteError: as ``measured`` does.
    """
    recipe = run.recipe
    baseline = baseline_replies(run, recipe.collect)
    context = Context(
        recipe=recipe.model_dump(mode="json"), upper_bound=upper_bound(recipe.model), sources=run.sources
    )
    judge = judge_named(recipe.evaluate.judge, baseline.judge.prefixes)
    return measured(run, recipe.evaluate.showing(baseline.floor_tokens), judge, adapter, context)


def evaluate_model(
    content: dict[str, Any],
    adapter: Path | None,
    output: Path | None = None,
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> tuple[Report, Path]:
    """The report of a model with any adapter, such as a merged one, and where it was written.

    ``content`` is a recipe as plain values; the folder is the adapter's, or ``output``. The
    backbone's refusals are learned from its own replies to the train prompts first.

    Raises:
        PaletteError: if the recipe, the prompts, the model, the adapter or the folder break a law.
    """
    mounted = read_adapter(adapter) if adapter else None
    beside = adapter if adapter is None or adapter.is_dir() else adapter.parent
    folder = output or beside or Path("runs") / f"evaluate-{'+'.join(content['authorise'])}"
    run = Run(create_recipe({"name": folder.name, **content}, overrides), folder, progress)
    if mounted is not None:
        run.require_backbone(mounted)
    measured = {"backbone": run.backbone_fingerprint, "adapter": mounted.digest if mounted else None}
    judge_named(run.recipe.evaluate.judge)
    read_earlier(run.recipe.evaluate, folder, measured)
    _ = run.backbone, run.authorisation
    if output or not adapter:
        claim(folder, {"recipe": run.recipe.name})
    return evaluate(run, mounted), folder


def upper_bound(model: str) -> Backbone | None:
    """The helpful checkpoint, for the organism only."""
    return load_backbone(organism.weights("helpful"), "organism/helpful") if model == "organism" else None


def measured(
    run: Run,
    settings: EvaluateSettings,
    judge: Judge,
    adapter: Adapter | None,
    context: Context,
) -> Report:
    """The report, also written as ``report.json`` and ``report.html`` into the run's folder.

    Reference answers are read here, and only here. Without an adapter the
    backbone is compared with itself.

    Raises:
        PromptError: if the split has no prompt.
        AdapterError: if the adapter does not fit the backbone.
        JudgeError: if the calibration is none, or that of another judge.
        OutputError: if a suite's result is none, or of another backbone or adapter.
    """
    backbone, authorised = run.backbone, run.authorisation.domains
    measured = {"backbone": backbone.fingerprint, "adapter": adapter.digest if adapter else None}
    earlier = read_earlier(settings, run.folder, measured)
    asked = _asked(run, settings)
    given = answers(
        run,
        asked,
        Lengths(settings.reply_tokens, settings.floor_tokens),
        asked.benign(settings.divergence_prompts),
        adapter,
        context.upper_bound,
    )
    # A report is the same however often its run was cut short; a time is not.
    write_json(run.folder / TIMING, given.tally.to_json())
    found = _judged(backbone, asked, judge, given, context.upper_bound)
    outcomes = found.plain.outcomes
    report = assemble(
        About(
            model=Model(name=backbone.name, fingerprint=backbone.fingerprint),
            authorised=authorised,
            split=settings.split,
        ),
        outcomes,
        given.moved,
        gate(outcomes, authorised, given.moved, settings.gate, found.framed),
        provenance(run, judge, context, adapter),
        _sections(settings, judge, context, earlier, asked.rows, found),
    )
    _write(run.folder, report, outcomes)
    if adapter:
        write_card(run.folder, report)
    return report


@dataclass(frozen=True)
class _Found:
    """What became of the prompts: plain, in each wrapper, and with the upper bound."""

    plain: Judged
    framed: dict[str, list[Outcome]]
    bound: UpperBound | None


def _asked(run: Run, settings: EvaluateSettings) -> Asked:
    """The split's prompts, plain and in wrappers."""
    rows = run.answered_prompts.split(settings.split).capped(settings.prompts).required(settings.split)
    roles = [run.authorisation.role(row) for row in rows]
    return Asked(rows, roles, run.render(rows), wrap(run, rows, settings.wrapped_prompts))


def _judged(backbone: Backbone, asked: Asked, judge: Judge, given: Answers, bound: Backbone | None) -> _Found:
    wrapped = asked.wrapped
    plain = judged(backbone, asked.rows, asked.roles, judge, given.plain)
    framed = judged(backbone, wrapped.rows, wrapped.roles, judge, given.framed).outcomes
    frames = {
        name: [one for own, one in zip(wrapped.names, framed, strict=True) if own == name]
        for name in WRAPPERS
    }
    return _Found(plain, frames, _upper_bound(bound, asked, judge, given.ideal))


def _sections(
    settings: EvaluateSettings,
    judge: Judge,
    context: Context,
    earlier: Earlier,
    rows: PromptSet,
    found: _Found,
) -> OptionalSections:
    """The sections of a report beside its figures."""
    ids, outcomes = [row.id for row in rows], found.plain.outcomes
    tables, verdicts = tabulate(outcomes), found.plain.verdicts
    return OptionalSections.model_validate(
        {
            "search": searched(context),
            "wrapped": {name: counted(each) for name, each in found.framed.items() if each},
            "upper_bound": found.bound,
            "judging": {
                **judging(judge, settings.judge, ids, verdicts, tables, earlier.calibration),
                "floor_tokens": settings.floor_tokens,
            },
            "over_refusal": over_refusal(outcomes),
            "hazards": hazards(outcomes, {row.id: row.hazard for row in rows}),
            "suites": earlier.suites["suites"],
            "sources": [*(source.to_json() for source in context.sources), *earlier.suites["sources"]],
        }
    )


def _write(folder: Path, report: Report, outcomes: Sequence[Outcome]) -> None:
    """Writes the files of a report, ``report.json`` last."""
    write_json(folder / OUTCOMES, [outcome.to_json() for outcome in outcomes])
    write_text(folder / PAGE, render(report))
    write_json(folder / REPORT, report.model_dump(mode="json"))


def _upper_bound(
    bound: Backbone | None, asked: Asked, judge: Judge, replies: Replies | None
) -> UpperBound | None:
    if bound is None or replies is None:
        return None
    outcomes = judged(bound, asked.rows, asked.roles, judge, (replies, replies)).outcomes
    return UpperBound.model_validate({"model": bound.name, "domains": tabulate(outcomes)["base"]})
