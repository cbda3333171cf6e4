"""One multi-objective study in a journal on disk, which goes on exactly where it was stopped."""

from __future__ import annotations

import fcntl
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from palette.errors import SearchError
from palette.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

OBJECTIVES = {
    "target_refusal_score": "minimize",
    "preserved_refusal_score": "maximize",
    "benign_divergence": "minimize",
}
"""Each objective's name and Optuna's direction: nats, nats, nats a token."""
SIGNS = tuple(1 if direction == "minimize" else -1 for direction in OBJECTIVES.values())
WORST = 1e6
"""How bad an objective is that is not a number; the trial is infeasible as well."""


@dataclass(frozen=True)
class SearchSpace:
    """What a trial chooses from."""

    methods: tuple[str, ...]
    sites: tuple[int, ...]
    positions: tuple[int, ...]
    widths: tuple[int, ...]
    strength: tuple[float, float]

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space in Optuna's words. Sites are ordered, so that neighbours inform each other."""
        return {
            "method": CategoricalDistribution(self.methods),
            "site": optuna.distributions.IntDistribution(min(self.sites), max(self.sites)),
            "position": CategoricalDistribution(self.positions),
            "width": CategoricalDistribution(self.widths),
            "strength": FloatDistribution(*self.strength),
        }


@dataclass(frozen=True)
class Finished:
    """A finished trial: its order among the finished ones, parameters, objectives and feasibility."""

    number: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    feasible: bool

    @property
    def losses(self) -> tuple[float, ...]:
        """The objectives with their signs turned so that less is better."""
        return tuple(sign * value for sign, value in zip(SIGNS, self.values, strict=True))

    @property
    def named(self) -> dict[str, float]:
        """The objectives by name."""
        return dict(zip(OBJECTIVES, self.values, strict=True))


Objective = Callable[[Mapping[str, Any]], tuple[Sequence[float], float]]
"""Gives the objectives' values and the constraint's: the trial is feasible where that is ≤ 0."""


class _ProcessLock(BaseJournalFileLock):
    """A lock that the operating system drops when its holder is killed, so that no run waits for a ghost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None

    def acquire(self) -> bool:
        self._stream = self._path.open("ab")
        fcntl.flock(self._stream, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def run_study(
    journal: Path,
    space: SearchSpace,
    objective: Objective,
    *,
    trials: int,
    seed: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Finished]:
    """The first ``trials`` finished trials of the study in ``journal``, running those that are missing.

    A trial's sampler is seeded by how many were finished before it, and a trial that was cut off is
    marked as failed, which the sampler ignores: a study resumed after a kill draws what an
    uninterrupted one would have drawn.

    Raises:
        SearchError: if the journal cannot be read.
    """
    study = _open(journal, seed)
    for cut_off in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(cut_off.number, state=TrialState.FAIL)
    done = len(_finished(study))
    advance(min(done, trials))
    for count in range(done, trials):
        study.sampler = _sampler(seed, count)
        trial = study.ask(space.distributions())
        values, constraint = objective(trial.params)
        if not all(math.isfinite(value) for value in values):
            values, constraint = [WORST * sign for sign in SIGNS], WORST
        trial.set_constraint("benign", constraint)
        study.tell(trial, list(values))
        advance(1)
    return [_frozen(number, trial) for number, trial in enumerate(_finished(study)[:trials])]


def _open(journal: Path, seed: int) -> optuna.Study:
    journal.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(journal)
    try:
        backend = JournalFileBackend(str(journal), lock_obj=_ProcessLock(journal.with_suffix(".lock")))
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name="search",
            directions=[StudyDirection[way.upper()] for way in OBJECTIVES.values()],
            load_if_exists=True,
            sampler=_sampler(seed, 0),
        )
    except (ValueError, KeyError) as error:
        raise SearchError(
            "a study's journal must be readable",
            got=error,
            remedy="delete it to search again",
            where=journal,
        ) from error


def _drop_torn_line(journal: Path) -> None:
    """Cuts a last line that a kill left without its end; whole lines stay."""
    if journal.is_file():
        with journal.open("rb+") as stream:
            data = stream.read()
            stream.truncate(data.rfind(b"\n") + 1)


def _sampler(seed: int, count: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=derive_seed(seed, "trial", count) % 2**32,
            n_startup_trials=16,
            multivariate=True,
        )


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _frozen(number: int, trial: FrozenTrial) -> Finished:
    feasible = all(value <= 0 for value in trial.constraints.values())
    return Finished(number, dict(trial.params), tuple(trial.values), feasible)
