"""The choice from the Pareto front, by a rule that the report states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from palette.errors import SearchError
from palette.studies.study import Finished

RULE = (
    "feasible trials only (benign divergence within its limit); of the Pareto front, the member "
    "nearest to the ideal point after each objective is scaled to [0, 1] over the front; ties go to "
    "the lower target refusal score, then to the earlier trial"
)


@dataclass(frozen=True)
class Choice:
    """The Pareto front, best first by the rule, and so the chosen member."""

    front: tuple[Finished, ...]

    @property
    def chosen(self) -> Finished:
        """The front's first member."""
        return self.front[0]


def choose(trials: Sequence[Finished]) -> Choice:
    """The Pareto front of the feasible trials, ordered by ``RULE``.

    Raises:
        SearchError: if no trial is feasible.
    """
    feasible = sorted((t for t in trials if t.feasible), key=lambda t: t.number)
    if not feasible:
        least = min((trial.values[2] for trial in trials), default=float("nan"))
        raise SearchError(
            "at least one trial must keep benign replies as they are",
            got=f"a least benign divergence of {least:.3g} nats over {len(trials)} trials",
            remedy="raise search.divergence_limit or search.trials",
        )
    front = [t for t in feasible if not any(dominates(o.losses, t.losses) for o in feasible)]
    front = list({trial.values: trial for trial in reversed(front)}.values())
    columns = list(zip(*(trial.losses for trial in front), strict=True))
    low = [min(column) for column in columns]
    span = [max(column) - min(column) or 1.0 for column in columns]

    def distance(trial: Finished) -> float:
        return math.fsum(((v - a) / s) ** 2 for v, a, s in zip(trial.losses, low, span, strict=True))

    ordered = sorted(front, key=lambda t: (round(distance(t), 9), t.values[0], t.number))
    return Choice(tuple(ordered))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better than ``other``; all are minimised."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
