"""What a study searches, what its trials are worth, and what collect and search leave in a run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from palette.backbones import Backbone
from palette.directions import CONTRASTS, Directions, Intervention, StrengthKernel
from palette.evaluation.refusal_ngrams import RefusalNgrams
from palette.files import read_json, read_tensors, write_tensors
from palette.search.settings import OBJECTIVES

MEANS, FRONT = Path("collect") / "means.safetensors", Path("search") / "front.json"
Categorical, Integer, Real = CategoricalDistribution, IntDistribution, FloatDistribution
Space = Mapping[str, CategoricalDistribution | IntDistribution | FloatDistribution]
Objectives = Mapping[str, Literal["minimize", "maximize"]]
"""Each objective's name and Optuna's direction, in order."""
Params = Mapping[str, Any]

STRENGTH = (0.5, 2.5)
"""Least and greatest strength: below, refusals stay; a flip (2) matches ablation and may go beyond."""
WIDTHS = (0.0, 0.15, 0.3, 1.0)
"""Sites edited to either side of the peak, as shares of the depth: from one site to all of them. One
direction, read late, at most or all sites opened every model tried (benchmarks/LOG.md)."""
WORST = 1e6
"""How bad an objective is that is not a number; the trial is infeasible as well."""


@dataclass(frozen=True)
class Collected:
    """The artefact of collect."""

    directions: Directions
    refusal_ngrams: RefusalNgrams
    """N-grams of tokens by which a reply turns into a refusal, for the refusal score and for teachers."""
    judge_prefixes: tuple[str, ...]
    """Word prefixes with which the backbone's refusals begin, for the rule judge."""
    counts: dict[str, dict[str, int]]
    """For each role: prompts read, and prompts that the backbone met as the role expects."""
    separations: dict[str, list[list[float]]]
    """For each candidate direction d-prime at every site and position; none without a covariance."""
    floor_tokens: int
    """Tokens after which the backbone's refusals can be told: the least that floor replies are given."""
    domains: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By domain and kind: train prompts read, refused and answered; none in earlier versions' artefacts."""
    similarities: dict[str, list[list[float]]] = field(default_factory=dict)
    """Cosines of two modalities' directions, or of one's halves; none where all prompts are of one."""


def read_collected(folder: Path) -> Collected:
    """The artefact of collect in a run's folder.

    Raises:
        OutputError: if it is missing or damaged.
    """
    tensors, card = read_tensors(folder / MEANS)
    return Collected(
        directions=Directions(tensors.pop("target"), tensors.pop("benign"), tensors),
        refusal_ngrams=RefusalNgrams.from_json(card["refusal_ngrams"]),
        judge_prefixes=tuple(card["judge_openings"]),
        counts=card["counts"],
        separations=card["separations"],
        # An artefact of an earlier version does not say.
        floor_tokens=card.get("floor_tokens", 0),
        domains=card.get("domains", {}),
        similarities=card.get("similarities", {}),
    )


def write_collected(path: Path, collected: Collected) -> None:
    """Writes the artefact, atomically."""
    card = {
        "refusal_ngrams": collected.refusal_ngrams.to_json(),
        "judge_openings": list(collected.judge_prefixes),
        "counts": collected.counts,
        "separations": collected.separations,
        "floor_tokens": collected.floor_tokens,
        "domains": collected.domains,
        **({"similarities": collected.similarities} if collected.similarities else {}),
    }
    directions = collected.directions
    means = {"target": directions.target, "benign": directions.benign}
    write_tensors(path, {**directions.candidates, **means}, card)


USUAL_METHOD, USUAL_DEPTHS = "centred_ablation", (2 / 3, 3 / 4, 4 / 5, 9 / 10)
"""What is tried among the first trials, and at which shares of the depth its direction is read."""


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
        # The target's own directions: the mean of all refusals opens them all.
        "direction": Categorical([name for name in CONTRASTS if name in collected]),
        "site": Integer(1, backbone.layers),
        "position": Categorical(range(-backbone.post_instruction, 0)),
        "width": Categorical(sorted({round(share * backbone.layers) for share in WIDTHS})),
        "strength": Real(*STRENGTH),
    }


def intervention_of(params: Params) -> Intervention:
    """The intervention that a trial's parameters, or a member's plain values, describe."""
    peak = params["site"] if "site" in params else params["peak"]
    kernel = StrengthKernel(peak, params["width"], params["strength"])
    return Intervention(params["method"], params["position"], kernel, params["direction"])


@dataclass(frozen=True)
class Member:
    """A member of the Pareto front: what internalise teaches by, and the report shows."""

    trial: int
    intervention: Intervention
    values: Mapping[str, float]
    feasible: bool = True
    """Whether it broke no limit, as every member of the front."""

    @classmethod
    def of(cls, trial: Finished, objectives: Objectives) -> Member:
        """A trial as a member, with the report's figures whatever it was searched by."""
        known = {**trial.notes, **trial.named(objectives)}
        values = {name: known[name] for name in dict.fromkeys([*OBJECTIVES, *objectives])}
        return cls(trial.number, intervention_of(trial.params), values)

    def to_json(self) -> dict[str, Any]:
        """The member as plain values."""
        return {"trial": self.trial, **self.values, "intervention": self.intervention.to_json()}


def read_front(folder: Path) -> list[Member]:
    """The Pareto front in a run's folder, the chosen member first.

    Raises:
        OutputError: if it is missing or damaged.
    """
    members = []
    for values in read_json(folder / FRONT)["front"]:
        trial, intervention = values.pop("trial"), intervention_of(values.pop("intervention"))
        members.append(Member(trial, intervention, values))
    return members


def read_relaxing(folder: Path) -> list[Member]:
    """Every trial in a run's folder that lowered the target's refusal score far enough, on the front or not.

    Raises:
        OutputError: if it is missing or damaged.
    """
    trials = read_json(folder / FRONT)["all"]
    return [
        Member(
            trial["trial"],
            intervention_of(trial["intervention"]),
            {name: trial[name] for name in OBJECTIVES},
            trial["feasible"],
        )
        for trial in trials
        if not {"target_refusals", "finite"} & set(trial["broken"])
    ]


def usual_trials(space: Space, layers: int) -> list[Params]:
    """What opens real chat models: one direction that is read deep in a model, and taken away at every site.

    Read at four fifths of the depth it was measured to take a model's refusals from 94 to 0 % where
    directions read earlier, or at few sites, left them or made babble (benchmarks/LOG.md). A search of a
    few dozen trials over all there is may meet none of them.
    """
    method, width = space["method"], space["width"]
    assert isinstance(method, CategoricalDistribution)
    assert isinstance(width, CategoricalDistribution)
    fixed = {
        "method": USUAL_METHOD if USUAL_METHOD in method.choices else method.choices[0],
        "direction": "difference",
        "position": -1,
        "width": width.choices[-1],
        "strength": 1.0,
    }
    sites = dict.fromkeys(max(1, round(depth * layers)) for depth in USUAL_DEPTHS)
    return [{**fixed, "site": site} for site in sites]


def latin_hypercube(space: Space, count: int, seed: int) -> list[Params]:
    """Points of which each parameter's values are spread evenly, whichever parameter is looked at.

    Drawn at random, a small number of first trials leaves whole categories out.
    """
    design = qmc.LatinHypercube(len(space), rng=seed).random(count).tolist()
    return [{name: _at(space[name], share) for name, share in zip(space, row, strict=True)} for row in design]


def _at(axis: CategoricalDistribution | IntDistribution | FloatDistribution, share: float) -> Any:
    """The value that lies at a share, from 0 to 1, of an axis."""
    if isinstance(axis, Categorical):
        return axis.choices[int(share * len(axis.choices))]
    if isinstance(axis, Integer):
        return axis.low + int(share * (axis.high - axis.low + 1))
    return axis.low + share * (axis.high - axis.low)
