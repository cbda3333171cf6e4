"""What a study searches and what its trials are worth, in plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from palette.backbones import Backbone
from palette.directions import Intervention, StrengthKernel

Categorical, Integer, Real = CategoricalDistribution, IntDistribution, FloatDistribution
Space = Mapping[str, CategoricalDistribution | IntDistribution | FloatDistribution]
Objectives = Mapping[str, Literal["minimize", "maximize"]]
"""Each objective's name and Optuna's direction, in order."""
Params = Mapping[str, Any]

DIRECTIONS = ("difference", "projected", "cleaned", "whitened")
"""Candidate directions tried: the target's own, since the mean of all refusals opens them all."""
STRENGTH = (0.5, 2.5)
"""Least and greatest strength: below, refusals stay; a flip (2) matches ablation and may go beyond."""
WIDTHS = (0, 1)
"""Sites edited beside the peak; wider kernels made searches of 64 trials worse."""
WORST = 1e6
"""How bad an objective is that is not a number; the trial is infeasible as well."""


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

    def named(self, objectives: Objectives) -> dict[str, float]:
        """The objectives by name."""
        return dict(zip(objectives, self.values, strict=True))


def losses(values: Sequence[float], objectives: Objectives) -> tuple[float, ...]:
    """Values of objectives with their signs turned so that less is better."""
    ways = objectives.values()
    return tuple(v if way == "minimize" else -v for v, way in zip(values, ways, strict=True))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better than ``other``; all are minimised."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def intervention_space(backbone: Backbone, methods: Sequence[str], collected: Sequence[str]) -> Space:
    """What a trial chooses from; a direction that the covariance was too large for is no choice."""
    return {
        "method": Categorical(methods),
        "direction": Categorical([name for name in DIRECTIONS if name in collected]),
        "site": Integer(1, backbone.layers),
        "position": Categorical(range(-backbone.post_instruction, 0)),
        "width": Categorical(WIDTHS),
        "strength": Real(*STRENGTH),
    }


def intervention_of(params: Params) -> Intervention:
    """The intervention that a trial's parameters, or a member's plain values, describe."""
    peak = params["site"] if "site" in params else params["peak"]
    kernel = StrengthKernel(peak, params["width"], params["strength"])
    return Intervention(params["method"], params["position"], kernel, params["direction"])


def latin_hypercube(space: Space, count: int, seed: int) -> list[Params]:
    """Points of which each parameter's values are spread evenly, whichever parameter is looked at.

    Drawn at random, a small number of first trials leaves whole categories out.
    """
    design = qmc.LatinHypercube(len(space), rng=seed).random(count)
    return [
        {name: _at(axis, float(share)) for (name, axis), share in zip(space.items(), row, strict=True)}
        for row in design
    ]


def _at(axis: CategoricalDistribution | IntDistribution | FloatDistribution, share: float) -> Any:
    """The value that lies at a share, from 0 to 1, of an axis."""
    if isinstance(axis, Categorical):
        return axis.choices[int(share * len(axis.choices))]
    if isinstance(axis, Integer):
        return axis.low + int(share * (axis.high - axis.low + 1))
    return axis.low + share * (axis.high - axis.low)
