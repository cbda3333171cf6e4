"""Search: a multi-objective study for the intervention that relaxes refusals and moves little else."""

from __future__ import annotations

import platform
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from palette.files import write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.processes import silent
from palette.recipe import Recipe
from palette.run import Run
from palette.search.choice import RULE, affordable, audit, audited, choose, relaxing_first
from palette.search.objectives import Objective
from palette.search.settings import Conditions, SearchSettings
from palette.search.space import (
    FRONT,
    MEANS,
    Collected,
    Finished,
    Member,
    Objectives,
    Params,
    Scored,
    intervention_of,
    intervention_space,
    latin_hypercube,
    read_collected,
    usual_trials,
)
from palette.search.study import StudyPlan, read_study, run_study, spawned
from palette.seeding import derive_seed

OUTPUTS = (FRONT,)
JOURNAL = Path("search") / "study.journal"
STARTUP, FEW = 32, 8
"""Trials spread evenly over the space first, and NSGA's population: fewer missed whole regions. Behind the
first few of them stand the usual ones."""


def search(run: Run[Recipe], conditions: Conditions | None = None) -> list[Member]:
    """Runs or resumes the study; writes ``search/front.json``; returns the front, the chosen first.

    Benchmarks may search under other ``conditions`` than the recipe gives.

    Raises:
        PromptError: if the validation split lacks a role.
        RecipeError: if an objective of the user's own cannot be had.
        SearchError: if no trial is feasible, or the study is about another recipe.
    """
    settings, recipe, collected = run.recipe.search, run.recipe, read_collected(run.folder)
    conditions = conditions or settings.conditions(recipe.limit, recipe.reply_tokens, recipe.memory_gib)
    objective = Objective(run, collected, settings.objectives, conditions)
    plan = _plan(run, settings, conditions, collected, objective.wanted)
    known = read_study(plan)
    objective.remember(known)
    with run.progress("search", settings.trials) as advance, ExitStack() as pool:
        workers = None
        if settings.workers > 1 and len(known) < settings.trials:
            started = (_start, run.sharing(progress=silent), settings, conditions, known)
            workers = pool.enter_context(spawned(settings.workers, *started))
        score = _score if workers else lambda params: objective(intervention_of(params))
        trials = run_study(plan, score, advance, workers)
    chosen = choose(trials, plan.objectives, settings.choose)
    settled = affordable(run, conditions.audit)
    replies = audit(run, collected, audited(trials, chosen, settled, run.seed), plan.objectives, settled)
    if settings.choose is None:
        chosen = relaxing_first(chosen, replies)
    front = [Member.of(trial, plan.objectives) for trial in chosen]
    write_json(
        run.folder / FRONT,
        {
            "rule": RULE,
            "limits": asdict(conditions.limits),
            "trials": len(trials),
            "feasible": sum(trial.feasible for trial in trials),
            "bound": dict(Counter(n for t in trials for n, excess in t.constraints.items() if excess > 0)),
            "rungs": dict(Counter(f"rung {trial.notes.get('rung', 0)}" for trial in trials)),
            "backbone": objective.base,
            "front": [member.to_json() for member in front],
            "audit": replies,
            "all": [
                {
                    "trial": trial.number,
                    "feasible": trial.feasible,
                    **trial.named(plan.objectives),
                    **trial.notes,
                    "broken": {name: excess for name, excess in trial.constraints.items() if excess > 0},
                    "intervention": intervention_of(trial.params).to_json(),
                }
                for trial in trials
            ],
        },
    )
    return front


_objective: list[Objective] = []
"""In a worker's process, what it scores by."""


def _start(run: Run, settings: SearchSettings, conditions: Conditions, known: list[Finished]) -> None:
    torch.set_num_threads(1)
    objective = Objective(run, read_collected(run.folder), settings.objectives, conditions)
    objective.remember(known)
    _objective[:] = [objective]


def _score(params: Params) -> Scored:
    return _objective[0](intervention_of(params))


def _plan(
    run: Run, settings: SearchSettings, conditions: Conditions, collected: Collected, wanted: Objectives
) -> StudyPlan:
    authorisation = run.authorisation
    about = [
        run.backbone.fingerprint,
        run.prompts.fingerprint,
        [authorisation.domains, authorisation.floor.digest],
        fingerprint_file(run.folder / MEANS),
        settings.model_dump(mode="json", exclude=set(settings.free | {"storage"})),
        settings.own_files(),
        [asdict(conditions.scoring), asdict(conditions.limits)],
        run.seed,
        *([{"system": run.recipe.system}] if run.recipe.system else []),
    ]
    space = intervention_space(run.backbone, settings.methods, collected.directions.names)
    usual = usual_trials(space, run.backbone.layers)
    spread = latin_hypercube(space, STARTUP, derive_seed(run.seed, "startup"))
    return StudyPlan(
        storage=settings.storage or run.folder / JOURNAL,
        space=space,
        objectives=wanted,
        identity=fingerprint(about),
        trials=settings.trials,
        seed=run.seed,
        sampler=settings.sampler,
        startup=STARTUP,
        # A search of very few trials has those that differ.
        enqueue=(*spread[:FEW], *usual, *spread[FEW:]),
        machine=platform.node(),
    )
