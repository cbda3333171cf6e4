"""Search: a multi-objective study for the intervention that relaxes refusals and moves little else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_serializer, model_validator

from palette.directions import CANDIDATES, Intervention, StrengthKernel
from palette.errors import SearchError
from palette.files import read_json, write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.rules import RuleJudge
from palette.search import (
    RULE,
    Categorical,
    Choice,
    Finished,
    Integer,
    Params,
    Real,
    Sampler,
    Scored,
    Space,
    StudyPlan,
    choose,
    latin_hypercube,
    read_study,
    run_study,
    shown,
    workers,
)
from palette.search.audit import AuditSettings, audit, audited
from palette.search.constraints import LimitSettings
from palette.search.objectives import OBJECTIVES, Objective, ScoringSettings
from palette.search.sweeps import Caching
from palette.seeding import derive_seed
from palette.settings import Settings
from palette.stages import collect as collecting
from palette.stages.assignment import Assignment, silent
from palette.stages.collect import Collected, read_collected

ARTEFACT = Path("search") / "front.json"
JOURNAL = Path("search") / "study.journal"

Method = Literal[
    "directional_ablation", "centred_ablation", "activation_addition", "weight_orthogonalisation"
]


class SearchSettings(Settings):
    """Options of the stage search."""

    free: ClassVar[frozenset[str]] = frozenset({"trials", "choose", "workers", "audit", "caching"})

    trials: int = Field(64, ge=1, description="trials of the study")
    sampler: Sampler = Field("tpe", description="how trials are drawn: tpe, nsga2, nsga3 or gp")
    startup: int = Field(32, ge=2, description="trials spread evenly over the space first; NSGA's population")
    methods: tuple[Method, ...] = Field(
        ("directional_ablation", "centred_ablation", "activation_addition"),
        min_length=1,
        description="interventions tried",
    )
    directions: tuple[str, ...] = Field(
        ("difference", "projected", "cleaned", "whitened"),
        min_length=1,
        description=f"candidate directions tried, of {', '.join(CANDIDATES)}",
    )
    strength: tuple[float, float] = Field((0.5, 2.5), description="least and greatest strength")
    widths: tuple[int, ...] = Field((0, 1), min_length=1, description="sites edited beside the peak")
    choose: int | None = Field(
        None, ge=0, description="the trial to take from the front (default: by the rule)"
    )
    workers: int = Field(1, ge=1, description="processes that share the study on this machine")
    storage: str | None = Field(
        None,
        description="an Optuna storage shared by machines, a database's URL or grpc://host:port "
        "(default: a journal in the run's folder)",
    )
    panel: ScoringSettings = Field(ScoringSettings(), description="what a trial is scored on")
    limits: LimitSettings = Field(LimitSettings(), description="the constraints of a trial")
    caching: Caching = Field(Caching(), description="exact caching")
    audit: AuditSettings = Field(AuditSettings(), description="what is generated at full length")

    @field_serializer("storage")
    def _without_password(self, storage: str | None) -> str | None:
        # The report carries the recipe, and people pass reports on.
        return None if storage is None else shown(storage)

    @model_validator(mode="after")
    def _laws(self) -> SearchSettings:
        if self.strength[0] > self.strength[1]:
            raise ValueError("strength must be the least, then the greatest")
        if unknown := sorted(set(self.directions) - set(CANDIDATES)):
            raise ValueError(f"directions must be of {', '.join(CANDIDATES)}, not {', '.join(unknown)}")
        return self


@dataclass(frozen=True)
class Member:
    """A member of the Pareto front."""

    trial: int
    intervention: Intervention
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The member as plain values."""
        return {
            "trial": self.trial,
            **dict(self.values),
            "intervention": self.intervention.to_json(),
        }


def search(assignment: Assignment, settings: SearchSettings) -> list[Member]:
    """Runs or resumes the study; writes ``search/front.json``; returns the front, the chosen first.

    Raises:
        PromptError: if the validation split lacks a role.
        SearchError: if no trial is feasible, or the study is about another recipe.
    """
    collected = read_collected(assignment.folder)
    objective = Objective(assignment, collected, settings.panel, settings.limits, settings.caching)
    plan = _plan(assignment, settings, collected)
    objective.remember(read_study(plan))
    with _helping(assignment, settings), assignment.progress("search", settings.trials) as advance:
        trials = run_study(plan, _scores(objective), advance)
    choice = choose(trials, OBJECTIVES).taking(settings.choose)
    checked = _audit(assignment, settings, collected, (trials, choice))
    front = [_member(trial) for trial in choice.front]
    write_json(
        assignment.folder / ARTEFACT,
        {
            "rule": RULE,
            "limits": settings.limits.model_dump(mode="json"),
            "trials": len(trials),
            "feasible": sum(trial.feasible for trial in trials),
            "bound": dict(Counter(n for t in trials for n, excess in t.constraints.items() if excess > 0)),
            "rungs": dict(Counter(f"rung {trial.notes.get('rung', 0)}" for trial in trials)),
            "backbone": objective.base,
            "front": [member.to_json() for member in front],
            "audit": checked,
            "all": [_record(trial) for trial in trials],
        },
    )
    return front


def read_front(folder: Path) -> list[Member]:
    """The Pareto front in a run's folder, the chosen member first.

    Raises:
        OutputError: if it is missing or damaged.
    """
    found = []
    for member in read_json(folder / ARTEFACT)["front"]:
        values = {k: v for k, v in member.items() if k not in ("trial", "intervention")}
        found.append(Member(member["trial"], intervention_of(member["intervention"]), values))
    return found


def intervention_of(params: Params) -> Intervention:
    """The intervention that a trial's parameters, or a member's plain values, describe."""
    peak = params["site"] if "site" in params else params["peak"]
    kernel = StrengthKernel(peak, params["width"], params["strength"])
    return Intervention(params["method"], params["position"], kernel, params["direction"])


def work(assignment: Assignment, settings: SearchSettings, worker: int) -> None:
    """Takes part in a study as one worker of several, until all of its trials are finished."""
    torch.set_num_threads(1)
    collected = read_collected(assignment.folder)
    objective = Objective(assignment, collected, settings.panel, settings.limits, settings.caching)
    plan = replace(_plan(assignment, settings, collected), worker=worker)
    objective.remember(read_study(plan))
    run_study(plan, _scores(objective))


def _helping(assignment: Assignment, settings: SearchSettings) -> AbstractContextManager[None]:
    """The other workers of the study."""
    quiet = replace(assignment, progress=silent)
    return workers(work, [(quiet, settings, number) for number in range(1, settings.workers)])


def _plan(assignment: Assignment, settings: SearchSettings, collected: Collected) -> StudyPlan:
    authorisation = assignment.authorisation
    about = [
        assignment.backbone.fingerprint,
        assignment.prompts.fingerprint,
        [authorisation.domains, authorisation.floor.digest],
        fingerprint_file(assignment.folder / collecting.ARTEFACT),
        settings.model_dump(mode="json", exclude=set(settings.free | {"storage"})),
        assignment.seed,
    ]
    space = _space(assignment, settings, collected)
    first = latin_hypercube(space, settings.startup, derive_seed(assignment.seed, "startup"))
    return StudyPlan(
        storage=settings.storage or assignment.folder / JOURNAL,
        space=space,
        objectives=OBJECTIVES,
        identity=fingerprint(about),
        trials=settings.trials,
        seed=assignment.seed,
        sampler=settings.sampler,
        startup=settings.startup,
        batch=settings.caching.trials_per_pass,
        enqueue=tuple(first),
    )


def _space(assignment: Assignment, settings: SearchSettings, collected: Collected) -> Space:
    """What a trial chooses from; directions that the covariance was too large for are no choice.

    Raises:
        SearchError: if no direction is left.
    """
    known = [name for name in settings.directions if name in collected.directions.names]
    if not known:
        raise SearchError(
            "search.directions must name a direction that collect has found",
            got=", ".join(settings.directions),
            remedy="raise collect.covariance_gib, or add difference",
        )
    return {
        "method": Categorical(settings.methods),
        "direction": Categorical(tuple(known)),
        "site": Integer(1, assignment.backbone.layers),
        "position": Categorical(tuple(range(-assignment.backbone.post_instruction, 0))),
        "width": Categorical(settings.widths),
        "strength": Real(*settings.strength),
    }


def _scores(objective: Objective) -> Callable[[Sequence[Params]], list[Scored]]:
    return lambda asked: objective([intervention_of(params) for params in asked])


def _audit(
    assignment: Assignment,
    settings: SearchSettings,
    collected: Collected,
    found: tuple[Sequence[Finished], Choice],
) -> dict[str, Any]:
    trials = audited(*found, settings.audit, assignment.seed)
    judge = RuleJudge(prefixes=collected.judge_prefixes)
    chosen = [(trial, intervention_of(trial.params)) for trial in trials]
    with assignment.progress("audit", len(trials)) as advance:
        return audit(assignment, collected.directions, judge, chosen, settings.audit, advance)


def _member(trial: Finished) -> Member:
    return Member(trial.number, intervention_of(trial.params), trial.named(OBJECTIVES))


def _record(trial: Finished) -> dict[str, Any]:
    """A trial for the artefact: its scores, and by how much it broke what limit."""
    broken = {name: excess for name, excess in trial.constraints.items() if excess > 0}
    return {
        "trial": trial.number,
        "feasible": trial.feasible,
        **trial.named(OBJECTIVES),
        **trial.notes,
        "broken": broken,
        "intervention": intervention_of(trial.params).to_json(),
    }


__all__ = [
    "ARTEFACT",
    "JOURNAL",
    "Member",
    "SearchSettings",
    "intervention_of",
    "read_front",
    "read_study",
    "search",
    "work",
]
