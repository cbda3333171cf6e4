"""The choice from the Pareto front by a rule that the report states, and what fronts are compared by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna._hypervolume import compute_hypervolume

from palette.errors import SearchError
from palette.search.space import Finished, Objectives

RULE = (
    "constraints first: only trials that break none; of their Pareto front, the knee: the member "
    "nearest to the ideal point after each objective is scaled to [0, 1] over the front; ties go to "
    "the lower first objective, then to the earlier trial"
)


@dataclass(frozen=True)
class Choice:
    """The Pareto front, best first by the rule, and so the chosen member."""

    front: tuple[Finished, ...]

    @property
    def chosen(self) -> Finished:
        """The front's first member."""
        return self.front[0]

    def taking(self, number: int | None) -> Choice:
        """The same front with another member first.

        Raises:
            SearchError: if no member has that trial number.
        """
        if number is None:
            return self
        first = [trial for trial in self.front if trial.number == number]
        if not first:
            raise SearchError(
                "search.choose must be a member of the Pareto front",
                got=number,
                remedy=f"take one of {', '.join(str(t.number) for t in self.front)}",
            )
        return Choice((*first, *(trial for trial in self.front if trial.number != number)))


def choose(trials: Sequence[Finished], objectives: Objectives) -> Choice:
    """The Pareto front of the feasible trials, ordered by ``RULE``.

    Raises:
        SearchError: if no trial is feasible, naming the constraints that bound.
    """
    feasible = sorted((t for t in trials if t.feasible), key=lambda t: t.number)
    if not feasible:
        raise SearchError(
            "at least one trial must keep every limit",
            got=bound(trials),
            remedy="raise that limit under search.limits, or search.trials; the study is kept",
        )
    losses = {trial.number: trial.losses(objectives) for trial in feasible}
    distinct = list({losses[trial.number]: trial for trial in reversed(feasible)}.values())
    front = [t for t in distinct if not any(dominates(o, losses[t.number]) for o in losses.values())]
    columns = list(zip(*(losses[trial.number] for trial in front), strict=True))
    low = [min(column) for column in columns]
    span = [max(column) - min(column) or 1.0 for column in columns]

    def distance(trial: Finished) -> float:
        each = zip(losses[trial.number], low, span, strict=True)
        return math.fsum(((v - a) / s) ** 2 for v, a, s in each)

    return Choice(tuple(sorted(front, key=lambda t: (round(distance(t), 9), losses[t.number][0], t.number))))


def bound(trials: Sequence[Finished]) -> str:
    """Which constraints bound how many trials, and the least excess of each."""
    broken = Counter(name for t in trials for name, excess in t.constraints.items() if excess > 0)
    parts = [
        f"{name} bound {count} (least excess {min(_excesses(trials, name)):.3g})"
        for name, count in sorted(broken.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"{len(trials)} trials, of which {' and '.join(parts) or 'none was scored'}"


def _excesses(trials: Sequence[Finished], name: str) -> list[float]:
    return [t.constraints[name] for t in trials if t.constraints.get(name, 0.0) > 0]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better than ``other``; all are minimised."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume that minimised points dominate below a reference point; 0 for none of them."""
    inside = [p for p in points if all(a <= b for a, b in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    return float(compute_hypervolume(np.array(inside, dtype=float), np.array(reference, dtype=float)))


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b in [-1, 1], which allows for ties; None where one of them never varies."""
    from scipy.stats import kendalltau

    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(kendalltau(one, other).statistic)
