"""Evaluate: the same prompts with and without the adapter, judged, counted, and put to the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from palette.adapters.lora import Adapter
from palette.backbones import Backbone
from palette.evaluation.gate import GateSettings, gate
from palette.evaluation.judge_error import judging
from palette.evaluation.outcomes import Outcome, counted, hazards, over_refusal, tabulate
from palette.evaluation.provenance import Context, provenance, searched
from palette.evaluation.replies import Answers, Asked, Lengths, Replies, answers
from palette.evaluation.verdicts import Judged, judged
from palette.evaluation.wrappers import WRAPPERS
from palette.evaluation.wrapping import wrap
from palette.files import write_json, write_text
from palette.judging.calibration import find_calibration
from palette.judging.cutting import FloorReplies
from palette.judging.judge import Judge
from palette.judging.registry import FORMS, JudgeName
from palette.prompts import PromptSet, Split
from palette.reporting.card import write_card
from palette.reporting.page import render
from palette.reporting.report import REPORT, assemble
from palette.reporting.schema import About, Annexes, Model, UpperBound
from palette.stages.assignment import Assignment
from palette.suites.report import included

PAGE = Path("report.html")
OUTCOMES = Path("evaluate") / "outcomes.json"
TIMING = Path("evaluate") / "timing.json"


class EvaluateSettings(FloorReplies):
    """Options of the stage evaluate."""

    split: Split = Field("test", description="the split that is reported")
    prompts: int = Field(400, ge=1, description="prompts at most, a domain, kind and tier")
    reply_tokens: int = Field(128, ge=1, description="tokens of a reply at most")
    wrapped_prompts: int = Field(
        8, ge=1, description="kept prompts a domain, kind and tier that are asked in every jailbreak wrapper"
    )
    divergence_prompts: int = Field(32, ge=1, description="benign prompts a domain for divergence")
    judge: JudgeName = Field("panel", description=f"who judges the replies: {FORMS}")
    calibration: Path | None = Field(
        None, description="that judge's measured error, from palette judge calibrate"
    )
    suites: tuple[Path, ...] = Field(
        (), description="results of palette suite for the same backbone and adapter, to stand in the report"
    )
    gate: GateSettings = Field(GateSettings(), description="limits of the gate")


@dataclass(frozen=True)
class Earlier:
    """What was measured before and stands in the report."""

    suites: Mapping[str, Any]
    """The slots ``suites`` and ``sources`` of the suites' results."""
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


def evaluate(
    assignment: Assignment,
    settings: EvaluateSettings,
    judge: Judge,
    adapter: Adapter | None,
    context: Context,
) -> dict[str, Any]:
    """The report, also written as ``report.json`` and ``report.html`` into the run's folder.

    ``assignment.prompts`` carry their reference answers here, and only here. Without an adapter the
    backbone is compared with itself.

    Raises:
        PromptError: if the split has no prompt.
        AdapterError: if the adapter does not fit the backbone.
        JudgeError: if the calibration is none, or that of another judge.
        OutputError: if a suite's result is none, or of another backbone or adapter.
    """
    backbone, authorised = assignment.backbone, assignment.authorisation.domains
    measured = {"backbone": backbone.fingerprint, "adapter": adapter.digest if adapter else None}
    earlier = read_earlier(settings, assignment.folder, measured)
    asked = _asked(assignment, settings)
    given = answers(
        assignment,
        asked,
        Lengths(settings.reply_tokens, settings.floor_tokens),
        asked.benign(settings.divergence_prompts),
        adapter,
        context.upper_bound,
    )
    # A report is the same however often its run was cut short; a time is not.
    write_json(assignment.folder / TIMING, given.tally.to_json())
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
        provenance(assignment, judge, context, adapter),
        _annexes(settings, judge, context, earlier, asked.rows, found),
    )
    _write(assignment.folder, report, outcomes)
    if adapter:
        write_card(assignment.folder, report)
    return report


@dataclass(frozen=True)
class _Found:
    """What became of the prompts: plain, in each wrapper, and with the upper bound."""

    plain: Judged
    framed: dict[str, list[Outcome]]
    bound: UpperBound | None


def _asked(assignment: Assignment, settings: EvaluateSettings) -> Asked:
    """The split's prompts, plain and in wrappers."""
    rows = assignment.prompts.split(settings.split).capped(settings.prompts).required(settings.split)
    roles = [assignment.authorisation.role(row) for row in rows]
    return Asked(rows, roles, assignment.render(rows), wrap(assignment, rows, settings.wrapped_prompts))


def _judged(backbone: Backbone, asked: Asked, judge: Judge, given: Answers, bound: Backbone | None) -> _Found:
    wrapped = asked.wrapped
    plain = judged(backbone, asked.rows, asked.roles, judge, given.plain)
    framed = judged(backbone, wrapped.rows, wrapped.roles, judge, given.framed).outcomes
    frames = {
        name: [one for own, one in zip(wrapped.names, framed, strict=True) if own == name]
        for name in WRAPPERS
    }
    return _Found(plain, frames, _upper_bound(bound, asked, judge, given.ideal))


def _annexes(
    settings: EvaluateSettings,
    judge: Judge,
    context: Context,
    earlier: Earlier,
    rows: PromptSet,
    found: _Found,
) -> Annexes:
    """The slots of a report beside its figures."""
    ids, outcomes = [row.id for row in rows], found.plain.outcomes
    tables, verdicts = tabulate(outcomes), found.plain.verdicts
    return Annexes.model_validate(
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


def _write(folder: Path, report: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Writes the files of a report, ``report.json`` last."""
    write_json(folder / OUTCOMES, [outcome.to_json() for outcome in outcomes])
    write_text(folder / PAGE, render(report))
    write_json(folder / REPORT, report)


def _upper_bound(
    bound: Backbone | None, asked: Asked, judge: Judge, replies: Replies | None
) -> UpperBound | None:
    if bound is None or replies is None:
        return None
    outcomes = judged(bound, asked.rows, asked.roles, judge, (replies, replies)).outcomes
    return UpperBound.model_validate({"model": bound.name, "domains": tabulate(outcomes)["base"]})
