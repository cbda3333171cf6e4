"""One study, by one worker or several, which goes on exactly where it was stopped."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from palette.errors import SearchError
from palette.progress import Advance
from palette.search.settings import SAMPLERS, shown
from palette.search.space import Finished, Objectives, Params, Scored, Space
from palette.search.storage import open_storage, turn_lock, unreadable, without_novelty, worker_lock
from palette.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

NAME, IDENTITY = "search", "palette:identity"
WORKER, VALUES = "palette:worker", "palette:values"


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
    worker: int = 0
    enqueue: tuple[Params, ...] = ()
    """What worker 0's first trials are to be, as far as it is said; the sampler draws the rest."""


def run_study(
    plan: StudyPlan, score: Callable[[Params], Scored], advance: Advance = lambda count, tokens=0: None
) -> list[Finished]:
    """The first ``trials`` finished trials of the study, running those that are missing.

    A trial's sampler is seeded by how many trials were finished before it, and one that was cut off is
    drawn again, so that a resumed study draws what an uninterrupted one would have drawn. Several
    workers share a study: each draws under a seed of its own and leaves the trials of other living
    workers alone. On a journal they take turns at asking, so that no more trials run than the study
    needs, and each worker waits for the last one. On another storage each goes on until enough trials
    are finished, and what is told after that is not returned.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    with ExitStack() as joined:
        study = _join(plan, joined)
        shown_so_far = 0
        while True:
            with _turn(plan):
                _fail_cut_off(study, plan)
                done, running = len(_trials(study, TrialState.COMPLETE)), len(_running(study))
                claimed = done + (running if isinstance(plan.storage, Path) else 0)
                trial = _ask(study, plan, done) if claimed < plan.trials else None
            advance(min(done, plan.trials) - shown_so_far)
            shown_so_far = min(done, plan.trials)
            if done >= plan.trials:
                return read_study(plan)
            if trial is None:
                time.sleep(0.1)  # Another worker has what is missing; if it dies, its trials are ours.
            else:
                _tell(study, plan, trial, score(trial.params).finite(plan.objectives))


def read_study(plan: StudyPlan) -> list[Finished]:
    """The first ``trials`` finished trials of the study, as they are.

    Raises:
        SearchError: if the study cannot be read, or is about something else.
    """
    finished = _trials(_open(plan), TrialState.COMPLETE)
    if not isinstance(plan.storage, Path):
        # What another worker tells later must move no trial that was already returned.
        finished.sort(key=lambda trial: (str(trial.datetime_complete), trial.number))
    return [_frozen(i, trial) for i, trial in enumerate(finished[: plan.trials])]


@contextmanager
def workers(work: Callable[..., object], calls: Sequence[tuple[object, ...]]) -> Iterator[None]:
    """Processes that each make one call of ``work``, waited for at the block's end, or ended by its error.

    Raises:
        SearchError: if one of them ends badly.
    """
    # Forking a process that has used torch may hang; a spawned one starts afresh.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=call, daemon=True) for call in calls]
    for process in processes:
        process.start()
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
            process.join()
        raise
    for process in processes:
        process.join()
        if process.exitcode:
            raise SearchError(
                "every worker of a search must end well",
                got=f"exit status {process.exitcode} of {process.name}",
                remedy="read its message above; the study is kept",
            )


def tpe(seed: int, startup: int) -> BaseSampler:
    """Multivariate Parzen estimators; running trials count as bad, so that workers part."""
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)


def nsga2(seed: int, startup: int) -> BaseSampler:
    """NSGA-II with a population of ``startup``."""
    return NSGAIISampler(seed=seed, population_size=startup)


def nsga3(seed: int, startup: int) -> BaseSampler:
    """NSGA-III with a population of ``startup``."""
    return NSGAIIISampler(seed=seed, population_size=startup)


def gp(seed: int, startup: int) -> BaseSampler:
    """A Gaussian process after ``startup`` trials."""
    return GPSampler(seed=seed, n_startup_trials=startup)


def _turn(plan: StudyPlan) -> AbstractContextManager[None]:
    return turn_lock(plan.storage) if isinstance(plan.storage, Path) else nullcontext()


def _join(plan: StudyPlan, joined: ExitStack) -> optuna.Study:
    """Opens the study as a worker, whose number is its own until ``joined`` is closed."""
    study = _open(plan)
    if isinstance(plan.storage, Path):
        lock = worker_lock(plan.storage, plan.worker)
        with _turn(plan):  # In which nobody tries our lock to see whether we are alive.
            mine = lock.taken(wait=False)
        if not mine:
            raise SearchError(
                "a worker's number must be its own",
                got=f"worker {plan.worker}, which is running already",
                remedy="wait for it to end",
                where=shown(plan.storage),
            )
        joined.callback(lock.release)
    else:
        _fail_cut_off(study, plan, joining=True)
    return study


def _ask(study: optuna.Study, plan: StudyPlan, done: int) -> Trial:
    _settle_parents(study, plan)
    study.sampler = _sampler(plan, "trial", plan.worker, done)
    if plan.worker == 0 and done < len(plan.enqueue):
        with without_novelty():
            study.sampler = optuna.samplers.PartialFixedSampler(dict(plan.enqueue[done]), study.sampler)
    trial = study.ask(dict(plan.space))
    trial.set_user_attr(WORKER, plan.worker)
    return trial


def _tell(study: optuna.Study, plan: StudyPlan, trial: Trial, scored: Scored) -> None:
    for name, excess in scored.constraints.items():
        trial.set_constraint(name, excess)
    for name, note in scored.notes.items():
        trial.set_user_attr(name, note)
    trial.set_user_attr(VALUES, list(scored.values))
    with _turn(plan):
        study.tell(trial, list(scored.values))


def _fail_cut_off(study: optuna.Study, plan: StudyPlan, *, joining: bool = False) -> None:
    """Marks trials whose worker is gone as failed, which samplers ignore.

    One that was cut off while it was told is told to its end instead: its scores are known. On a
    journal this is done in a turn, when no trial of ours runs. Elsewhere nobody knows who is alive:
    only what runs under our own number when we join was cut off.
    """
    for trial in _running(study):
        worker = trial.user_attrs.get(WORKER)
        ours = joining and worker == plan.worker
        if not (ours or (isinstance(plan.storage, Path) and _is_gone(plan, plan.storage, worker))):
            continue
        if VALUES in trial.user_attrs:
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
    storage = open_storage(plan.storage)
    try:
        with _turn(plan):
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                directions=[StudyDirection[way.upper()] for way in plan.objectives.values()],
                load_if_exists=True,
                sampler=_sampler(plan, "trial", plan.worker, 0),
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


def _sampler(plan: StudyPlan, *about: str | int) -> BaseSampler:
    with without_novelty():
        made: BaseSampler = SAMPLERS.row(plan.sampler).load()(
            derive_seed(plan.seed, *about) % 2**32, plan.startup
        )
    return made


def _settle_parents(study: optuna.Study, plan: StudyPlan) -> None:
    """Selects each generation's parents by a generator of its own.

    Optuna keeps them with the study when the first child is drawn. NSGA-III draws lots for them: from
    the child's generator, a child that is drawn again would be another one.
    """
    generation = 1
    selector = _sampler(plan, "parents", generation)
    while isinstance(selector, NSGAIISampler | NSGAIIISampler):
        if len(selector.get_population(study, generation - 1)) < plan.startup:
            return
        selector.get_parent_population(study, generation)
        generation += 1
        selector = _sampler(plan, "parents", generation)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return _trials(study, TrialState.RUNNING)


def _trials(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(state,))


def _frozen(number: int, trial: FrozenTrial) -> Finished:
    notes = {name: note for name, note in trial.user_attrs.items() if name not in (WORKER, VALUES)}
    return Finished(number, dict(trial.params), tuple(trial.values), dict(trial.constraints), notes)
