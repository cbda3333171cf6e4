"""One multi-objective study, by one worker or several, which goes on exactly where it was stopped."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from palette.errors import SearchError
from palette.search.settings import Sampler, shown
from palette.search.space import Finished, Objectives, Params, Scored, Space, distributions
from palette.search.storage import open_storage, turn_lock, unreadable, without_novelty, worker_lock
from palette.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

NAME, IDENTITY = "search", "palette:identity"
WORKER, VALUES = "palette:worker", "palette:values"
Objective = Callable[[Sequence[Params]], Sequence[Scored]]
"""Scores several trials at once."""


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
    sampler: Sampler = "tpe"
    startup: int = 16
    """Trials drawn at random before the sampler models them; NSGA's population."""
    batch: int = 1
    """Trials drawn before any of them is scored; whole batches are run, so a few more than ``trials``."""
    worker: int = 0
    enqueue: tuple[Params, ...] = ()
    """What worker 0's first trials are to be, as far as it is said; the sampler draws the rest."""


def run_study(
    plan: StudyPlan, objective: Objective, advance: Callable[[int], None] = lambda count: None
) -> list[Finished]:
    """The first ``trials`` finished trials of the study, running those that are missing.

    A batch's sampler is seeded by how many trials were finished before it; a batch that was cut off
    is drawn again as a whole, so that a resumed study draws what an uninterrupted one would have
    drawn. Several workers share a study: each draws under a seed of its own and leaves the trials of
    other living workers alone. On a journal they take turns at asking, so that no more batches run
    than the study needs, and each worker waits for the last one. On another storage each goes on
    until enough trials are finished, and what is told after that is not returned.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    with ExitStack() as held:
        study = _join(plan, held)
        shown_so_far = 0
        while True:
            with _turn(plan):
                _fail_cut_off(study, plan)
                done, running = len(_finished(study)), len(_running(study))
                claimed = done + (running if isinstance(plan.storage, Path) else 0)
                asked = _ask_batch(study, plan, done) if claimed < plan.trials else []
            advance(min(done, plan.trials) - shown_so_far)
            shown_so_far = min(done, plan.trials)
            if done >= plan.trials:
                return read_study(plan)
            if asked:
                _score(study, plan, objective, asked)
            else:
                time.sleep(0.1)  # Another worker has what is missing; if it dies, its trials are ours.


def read_study(plan: StudyPlan) -> list[Finished]:
    """The first ``trials`` finished trials of the study, as they are.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    finished = _finished(_open(plan))
    if not isinstance(plan.storage, Path):
        # What another worker tells later must move no trial that was already returned.
        finished.sort(key=lambda trial: (str(trial.datetime_complete), trial.number))
    return [_frozen(i, trial) for i, trial in enumerate(finished[: plan.trials])]


def _turn(plan: StudyPlan) -> AbstractContextManager[None]:
    return turn_lock(plan.storage) if isinstance(plan.storage, Path) else nullcontext()


def _join(plan: StudyPlan, held: ExitStack) -> optuna.Study:
    """Opens the study as a worker, whose number is its own until ``held`` is closed."""
    study = _open(plan)
    if isinstance(plan.storage, Path):
        lock = worker_lock(plan.storage, plan.worker)
        with _turn(plan):  # In which nobody tries our lock to see whether we are alive.
            mine = lock.taken(wait=False)
        if not mine:
            raise SearchError(
                "a worker's number must be its own",
                got=f"worker {plan.worker}, which is running already",
                remedy="wait for it, or give another search.worker",
                where=shown(plan.storage),
            )
        held.callback(lock.release)
    else:
        _fail_cut_off(study, plan, joining=True)
    return study


def _ask_batch(study: optuna.Study, plan: StudyPlan, done: int) -> list[Trial]:
    sampler = _sampler(plan, done)
    _settle_parents(study, plan)
    asked = []
    for place in range(done, done + plan.batch):
        study.sampler = sampler
        if plan.worker == 0 and place < len(plan.enqueue):
            with without_novelty():
                study.sampler = optuna.samplers.PartialFixedSampler(dict(plan.enqueue[place]), sampler)
        asked.append(_ask(study, plan))
    study.sampler = sampler
    return asked


def _ask(study: optuna.Study, plan: StudyPlan) -> Trial:
    trial = study.ask(distributions(plan.space))
    trial.set_user_attr(WORKER, plan.worker)
    return trial


def _score(study: optuna.Study, plan: StudyPlan, objective: Objective, asked: list[Trial]) -> None:
    scored = objective([trial.params for trial in asked])
    found = [score.finite(plan.objectives) for score in scored]
    for trial, score in zip(asked, found, strict=True):
        for name, excess in score.constraints.items():
            trial.set_constraint(name, excess)
        for name, note in score.notes.items():
            trial.set_user_attr(name, note)
        trial.set_user_attr(VALUES, list(score.values))
    with _turn(plan):
        for trial, score in zip(asked, found, strict=True):
            study.tell(trial, list(score.values))


def _fail_cut_off(study: optuna.Study, plan: StudyPlan, *, joining: bool = False) -> None:
    """Marks trials whose worker is gone as failed, which samplers ignore.

    A batch that was cut off while it was told is told to its end instead: its scores are known. On a
    journal this is done in a turn, when no trial of ours runs. Elsewhere nobody knows who is alive:
    only what runs under our own number when we join was cut off.
    """
    cut_off: dict[object, list[FrozenTrial]] = {}
    for trial in _running(study):
        worker = trial.user_attrs.get(WORKER)
        ours = joining and worker == plan.worker
        if ours or (isinstance(plan.storage, Path) and _is_gone(plan, plan.storage, worker)):
            cut_off.setdefault(worker, []).append(trial)
    for batch in cut_off.values():
        known = all(VALUES in trial.user_attrs for trial in batch)
        for trial in batch:
            if known:
                study.tell(trial.number, trial.user_attrs[VALUES])
            else:
                study.tell(trial.number, state=TrialState.FAIL)


def _is_gone(plan: StudyPlan, journal: Path, worker: int | None) -> bool:
    # A trial without a worker is one that was cut off while it was asked: nobody else asks in our turn.
    if worker is None or worker == plan.worker:
        return True
    lock = worker_lock(journal, worker)
    gone = lock.taken(wait=False)
    lock.release()
    return gone


def _open(plan: StudyPlan) -> optuna.Study:
    for params in plan.enqueue:
        _require_member(plan, params)
    storage = open_storage(plan.storage)
    try:
        with _turn(plan):
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                directions=[StudyDirection[way.upper()] for way in plan.objectives.values()],
                load_if_exists=True,
                sampler=_sampler(plan, 0),
            )
            if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):
                study.set_user_attr(IDENTITY, plan.identity)
                with without_novelty():
                    study.set_metric_names(list(plan.objectives))
            identity = study.user_attrs.get(IDENTITY)
    except SearchError:
        raise
    except Exception as error:  # Every driver has errors of its own.
        raise unreadable(plan.storage, error) from error
    if identity != plan.identity:
        raise SearchError(
            "a study serves one recipe",
            got=f"a study of {str(identity)[:12]}, not of {plan.identity[:12]}",
            remedy="choose another --output or search.storage, or delete the study",
            where=shown(plan.storage),
        )
    return study


def _require_member(plan: StudyPlan, params: Params) -> None:
    """Passes parameters that the space allows.

    Raises:
        SearchError: if one of them is unknown or outside its range.
    """
    allowed = distributions(plan.space)
    for name, value in params.items():
        try:
            inside = allowed[name]._contains(allowed[name].to_internal_repr(value))
        except (KeyError, ValueError, TypeError):
            inside = False
        if not inside:
            raise SearchError("an enqueued trial must lie in the space", got=f"{name} {value}")


def _sampler(plan: StudyPlan, done: int) -> BaseSampler:
    samplers = optuna.samplers
    seed = derive_seed(plan.seed, "trial", plan.worker, done) % 2**32
    if plan.sampler == "gp" and importlib.util.find_spec("scipy") is None:
        raise SearchError("the gp sampler needs scipy", got="none", remedy="install scipy, or use tpe")
    with without_novelty():
        if plan.sampler in ("nsga2", "nsga3"):
            return _genetic(plan, seed)
        if plan.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=plan.startup)
        # Penalising running trials keeps a batch, and workers, from drawing the same neighbourhood.
        return samplers.TPESampler(
            seed=seed, n_startup_trials=plan.startup, multivariate=True, constant_liar=True
        )


def _genetic(plan: StudyPlan, seed: int) -> NSGAIISampler | NSGAIIISampler:
    with without_novelty():
        kind = NSGAIISampler if plan.sampler == "nsga2" else NSGAIIISampler
        return kind(seed=seed, population_size=plan.startup)


def _settle_parents(study: optuna.Study, plan: StudyPlan) -> None:
    """Selects each generation's parents by a generator of its own.

    Optuna keeps them with the study when the first child is drawn. NSGA-III draws lots for them: from
    the child's generator, a child that is drawn again would be another one.
    """
    if plan.sampler not in ("nsga2", "nsga3"):
        return
    generation = 1
    selector = _genetic(plan, derive_seed(plan.seed, "parents", generation) % 2**32)
    while len(selector.get_population(study, generation - 1)) >= plan.startup:
        selector.get_parent_population(study, generation)
        generation += 1
        selector = _genetic(plan, derive_seed(plan.seed, "parents", generation) % 2**32)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _frozen(number: int, trial: FrozenTrial) -> Finished:
    notes = {name: note for name, note in trial.user_attrs.items() if name not in (WORKER, VALUES)}
    return Finished(number, dict(trial.params), tuple(trial.values), dict(trial.constraints), notes)
