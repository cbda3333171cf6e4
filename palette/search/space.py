"""What a study searches and what it wants, in plain values; Optuna's words are one function away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.stats import qmc

WORST = 1e6
"""How bad an objective is that is not a number; the trial is infeasible as well."""


@dataclass(frozen=True)
class Categorical:
    """One of a few values without an order."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Integer:
    """A whole number; neighbours inform each other."""

    low: int
    high: int


@dataclass(frozen=True)
class Real:
    """A real number."""

    low: float
    high: float


Space = Mapping[str, Categorical | Integer | Real]
Objectives = Mapping[str, Literal["minimize", "maximize"]]
"""Each objective's name and Optuna's direction, in order."""
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """What one trial is worth: objectives in order, constraints (met where ≤ 0), and notes kept with it."""

    values: tuple[float, ...]
    constraints: Mapping[str, float]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def finite(self, objectives: Objectives) -> Scored:
        """Itself, or, where an objective is not a number, the worst trial and an infeasible one."""
        if all(map(math.isfinite, self.values)):
            excess = {name: v if math.isfinite(v) else WORST for name, v in self.constraints.items()}
            return Scored(self.values, {**excess, "finite": -1.0}, self.notes)
        worst = tuple(WORST if way == "minimize" else -WORST for way in objectives.values())
        return Scored(worst, {**dict.fromkeys(self.constraints, 0.0), "finite": WORST}, {})


@dataclass(frozen=True)
class Finished:
    """A finished trial: its order among the finished ones, and all that is known of it."""

    number: int
    params: Params
    values: tuple[float, ...]
    constraints: Mapping[str, float]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether every constraint is met."""
        return all(excess <= 0 for excess in self.constraints.values())

    def losses(self, objectives: Objectives) -> tuple[float, ...]:
        """The objectives with their signs turned so that less is better."""
        ways = objectives.values()
        return tuple(v if way == "minimize" else -v for v, way in zip(self.values, ways, strict=True))

    def named(self, objectives: Objectives) -> dict[str, float]:
        """The objectives by name."""
        return dict(zip(objectives, self.values, strict=True))


def latin_hypercube(space: Space, count: int, seed: int) -> list[Params]:
    """Points of which each parameter's values are spread evenly, whichever parameter is looked at.

    Drawn at random, a small number of first trials leaves whole categories out.
    """
    design = qmc.LatinHypercube(len(space), rng=seed).random(count)
    return [
        {name: _at(axis, float(share)) for (name, axis), share in zip(space.items(), row, strict=True)}
        for row in design
    ]


def _at(axis: Categorical | Integer | Real, share: float) -> Any:
    """The value that lies at a share, from 0 to 1, of an axis."""
    if isinstance(axis, Categorical):
        return axis.values[int(share * len(axis.values))]
    if isinstance(axis, Integer):
        return axis.low + int(share * (axis.high - axis.low + 1))
    return axis.low + share * (axis.high - axis.low)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words."""
    found: dict[str, BaseDistribution] = {}
    for name, choice in space.items():
        if isinstance(choice, Categorical):
            found[name] = CategoricalDistribution(choice.values)
        elif isinstance(choice, Integer):
            found[name] = IntDistribution(choice.low, choice.high)
        else:
            found[name] = FloatDistribution(choice.low, choice.high)
    return found
