"""One study, in one process or several, which goes on exactly where it was stopped."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from palette.errors import SearchError
from palette.processes import Advance, unheard
from palette.search.settings import SAMPLERS, shown
from palette.search.space import Finished, Objectives, Params, Scored, Space
from palette.search.storage import opened_storage, unreadable, without_novelty
from palette.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

NAME, IDENTITY = "search", "palette:identity"
MACHINE, VALUES = "palette:worker", "palette:values"
EVOLUTIONARY = (NSGAIISampler, NSGAIIISampler)


@dataclass(frozen=True)
class StudyPlan:
    """A study: where it lives, what it is about, and how its trials are drawn."""

    storage: Path | str
    space: Space
    objectives: Objectives
    identity: str
    """The fingerprint of all that a score depends on; a study of another one is refused."""
    trials: int
    seed: int = 0
    sampler: str = "tpe"
    startup: int = 16
    """Trials drawn at random before the sampler models them; NSGA's population."""
    enqueue: tuple[Params, ...] = ()
    """What the first trials are to be, as far as it is said; the sampler draws the rest."""
    machine: str = ""
    """Who runs trials here; machines that share a storage leave each other's alone."""


def run_study(
    plan: StudyPlan,
    score: Callable[[Params], Scored],
    advance: Advance = unheard,
    workers: tuple[Executor, int] | None = None,
) -> list[Finished]:
    """The first ``trials`` finished trials of the study, running those that are missing.

    A trial's sampler is seeded by how many were finished or running before it, and one that was cut off
    is drawn again, so that a resumed study draws what an uninterrupted one would have drawn. With
    ``workers`` so many trials are scored at once, each by a process. Machines that share a storage go
    on until enough trials are finished, and what is told after that is not returned.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    pool, together = workers or (None, 1)
    scoring: dict[Future[Scored], Trial] = {}
    with _opened(plan) as study:
        _fail_cut_off(study, plan)
        told = 0
        while True:
            done = len(_trials(study, TrialState.COMPLETE))
            advance(min(done, plan.trials) - told)
            told = min(done, plan.trials)
            if done >= plan.trials:
                return _finished(study, plan)
            while len(scoring) < min(together, plan.trials - done):
                trial = _ask(study, plan)
                scoring[pool.submit(score, trial.params) if pool else _at_once(score, trial)] = trial
            for future in wait(scoring, return_when=FIRST_COMPLETED).done:
                _tell(study, scoring.pop(future), future.result().finite(plan.objectives))


def read_study(plan: StudyPlan) -> list[Finished]:
    """The first ``trials`` finished trials of the study, as they are.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    with _opened(plan) as study:
        return _finished(study, plan)


@contextmanager
def spawned(processes: int, start: Callable[..., None], *arguments: object) -> Iterator[tuple[Executor, int]]:
    """As many processes of this machine, each of which calls ``start`` first, and their number.

    Raises:
        SearchError: if one of them ends badly.
    """
    # Forking a process that has used torch may hang; a spawned one starts afresh.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, context, initializer=start, initargs=arguments) as pool:
            yield pool, processes
    except BrokenProcessPool as error:
        raise SearchError(
            "every worker of a search must end well",
            got="one that did not",
            remedy="read its message above; the study is kept",
        ) from error


@contextmanager
def _opened(plan: StudyPlan) -> Iterator[optuna.Study]:
    with opened_storage(plan.storage) as storage:
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                directions=[StudyDirection[way.upper()] for way in plan.objectives.values()],
                load_if_exists=True,
            )
            if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):
                study.set_user_attr(IDENTITY, plan.identity)
                with without_novelty():
                    study.set_metric_names(list(plan.objectives))
            identity = study.user_attrs.get(IDENTITY)
        except Exception as error:  # Every driver has errors of its own.
            raise unreadable(plan.storage, error) from error
        if identity != plan.identity:
            raise SearchError(
                "a study serves one recipe",
                got=f"a study of {str(identity)[:12]}, not of {plan.identity[:12]}",
                remedy="choose another --output or search.storage, or delete the study",
                where=shown(plan.storage),
            )
        yield study


def _ask(study: optuna.Study, plan: StudyPlan) -> Trial:
    _settle_parents(study, plan)
    number = len(_trials(study, TrialState.COMPLETE, TrialState.RUNNING))
    # Machines that ask at the same moment count alike; a journal's trials depend on no machine.
    study.sampler = _sampler(plan, "trial", 0 if isinstance(plan.storage, Path) else plan.machine, number)
    if number < len(plan.enqueue):
        with without_novelty():
            study.sampler = optuna.samplers.PartialFixedSampler(dict(plan.enqueue[number]), study.sampler)
    trial = study.ask(dict(plan.space))
    trial.set_user_attr(MACHINE, plan.machine)
    return trial


def _at_once(score: Callable[[Params], Scored], trial: Trial) -> Future[Scored]:
    future: Future[Scored] = Future()
    future.set_result(score(trial.params))
    return future


def _tell(study: optuna.Study, trial: Trial, scored: Scored) -> None:
    for name, excess in scored.constraints.items():
        trial.set_constraint(name, excess)
    for name, note in scored.notes.items():
        trial.set_user_attr(name, note)
    trial.set_user_attr(VALUES, list(scored.values))
    study.tell(trial, list(scored.values))


def _fail_cut_off(study: optuna.Study, plan: StudyPlan) -> None:
    """Marks this machine's trials that were cut off as failed, which samplers ignore.

    One that was cut off while it was told is told to its end instead: its scores are known. A journal is
    ours alone, so that every trial that runs in it was cut off.
    """
    for trial in _trials(study, TrialState.RUNNING):
        if not (isinstance(plan.storage, Path) or trial.user_attrs.get(MACHINE) == plan.machine):
            continue
        if VALUES in trial.user_attrs:
            study.tell(trial.number, trial.user_attrs[VALUES])
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def _sampler(plan: StudyPlan, *about: str | int) -> BaseSampler:
    """The plan's sampler with a seed of its own; in TPE running trials count as bad, so that workers part."""
    kind, seed = SAMPLERS.row(plan.sampler).load(), derive_seed(plan.seed, *about) % 2**32
    startup = {"population_size" if kind in EVOLUTIONARY else "n_startup_trials": plan.startup}
    options = {"multivariate": True, "constant_liar": True} if kind is TPESampler else {}
    with without_novelty():
        sampler: BaseSampler = kind(seed=seed, **startup, **options)
    return sampler


def _settle_parents(study: optuna.Study, plan: StudyPlan) -> None:
    """Selects each generation's parents by a generator of its own.

    Optuna keeps them with the study when the first child is drawn. NSGA-III draws lots for them: from
    the child's generator, a child that is drawn again would be another one.
    """
    for generation in count(1):
        selector = _sampler(plan, "parents", generation)
        if not isinstance(selector, EVOLUTIONARY):
            return
        if len(selector.get_population(study, generation - 1)) < plan.startup:
            return
        selector.get_parent_population(study, generation)


def _trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states)


def _finished(study: optuna.Study, plan: StudyPlan) -> list[Finished]:
    trials = _trials(study, TrialState.COMPLETE)
    if not isinstance(plan.storage, Path):
        # What another machine tells later must move no trial that was already returned.
        trials.sort(key=lambda trial: (str(trial.datetime_complete), trial.number))
    return [
        Finished(
            number,
            dict(trial.params),
            tuple(trial.values),
            dict(trial.constraints),
            {name: note for name, note in trial.user_attrs.items() if name not in (MACHINE, VALUES)},
        )
        for number, trial in enumerate(trials[: plan.trials])
    ]
