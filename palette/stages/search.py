"""Search: a multi-objective study for the intervention that relaxes refusals and moves little else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from palette.errors import SearchError
from palette.files import write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.rules import RuleJudge
from palette.progress import silent
from palette.recipe import Recipe
from palette.run import Run
from palette.search.audit import audit, audited
from palette.search.choice import RULE, Choice, choose
from palette.search.collected import MEANS, Collected, read_collected
from palette.search.front import FRONT, Member, intervention_of
from palette.search.objectives import OBJECTIVES, Objective
from palette.search.settings import SearchSettings
from palette.search.space import Categorical, Finished, Integer, Params, Real, Scored, Space, latin_hypercube
from palette.search.study import StudyPlan, read_study, run_study
from palette.search.workers import workers
from palette.seeding import derive_seed

OUTPUTS = (FRONT,)
JOURNAL = Path("search") / "study.journal"


def search(run: Run[Recipe]) -> list[Member]:
    """Runs or resumes the study; writes ``search/front.json``; returns the front, the chosen first.

    Raises:
        PromptError: if the validation split lacks a role.
        SearchError: if no trial is feasible, or the study is about another recipe.
    """
    settings, collected = run.recipe.search, read_collected(run.folder)
    objective = Objective(run, collected, settings.panel, settings.limits, settings.caching)
    plan = _plan(run, settings, collected)
    objective.remember(read_study(plan))
    with _helping(run, settings), run.progress("search", settings.trials) as advance:
        trials = run_study(plan, _scores(objective), advance)
    choice = choose(trials, OBJECTIVES).taking(settings.choose)
    checked = _audit(run, settings, collected, (trials, choice))
    front = [_member(trial) for trial in choice.front]
    write_json(
        run.folder / FRONT,
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


def work(run: Run, settings: SearchSettings, worker: int) -> None:
    """Takes part in a study as one worker of several, until all of its trials are finished."""
    torch.set_num_threads(1)
    collected = read_collected(run.folder)
    objective = Objective(run, collected, settings.panel, settings.limits, settings.caching)
    plan = replace(_plan(run, settings, collected), worker=worker)
    objective.remember(read_study(plan))
    run_study(plan, _scores(objective))


def _helping(run: Run, settings: SearchSettings) -> AbstractContextManager[None]:
    """The other workers of the study."""
    quiet = run.sharing(progress=silent)
    return workers(work, [(quiet, settings, number) for number in range(1, settings.workers)])


def _plan(run: Run, settings: SearchSettings, collected: Collected) -> StudyPlan:
    authorisation = run.authorisation
    about = [
        run.backbone.fingerprint,
        run.prompts.fingerprint,
        [authorisation.domains, authorisation.floor.digest],
        fingerprint_file(run.folder / MEANS),
        settings.model_dump(mode="json", exclude=set(settings.free | {"storage"})),
        run.seed,
    ]
    space = _space(run, settings, collected)
    first = latin_hypercube(space, settings.startup, derive_seed(run.seed, "startup"))
    return StudyPlan(
        storage=settings.storage or run.folder / JOURNAL,
        space=space,
        objectives=OBJECTIVES,
        identity=fingerprint(about),
        trials=settings.trials,
        seed=run.seed,
        sampler=settings.sampler,
        startup=settings.startup,
        batch=settings.caching.trials_per_pass,
        enqueue=tuple(first),
    )


def _space(run: Run, settings: SearchSettings, collected: Collected) -> Space:
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
        "site": Integer(1, run.backbone.layers),
        "position": Categorical(tuple(range(-run.backbone.post_instruction, 0))),
        "width": Categorical(settings.widths),
        "strength": Real(*settings.strength),
    }


def _scores(objective: Objective) -> Callable[[Sequence[Params]], list[Scored]]:
    return lambda asked: objective([intervention_of(params) for params in asked])


def _audit(
    run: Run,
    settings: SearchSettings,
    collected: Collected,
    found: tuple[Sequence[Finished], Choice],
) -> dict[str, Any]:
    trials = audited(*found, settings.audit, run.seed)
    judge = RuleJudge(prefixes=collected.judge_prefixes)
    chosen = [(trial, intervention_of(trial.params)) for trial in trials]
    with run.progress("audit", len(trials)) as advance:
        return audit(run, collected.directions, judge, chosen, settings.audit, advance)


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
