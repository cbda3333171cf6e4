"""Search: a multi-objective study for the intervention that relaxes refusals and moves little else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from palette.artefacts import read_json, write_json
from palette.authorisation import Role
from palette.backbones import greedy_replies, reply_logits
from palette.directions import Intervention, StrengthKernel, intervening
from palette.evaluation.divergence import divergence
from palette.evaluation.refusal_score import mean_score, refusal_scores
from palette.settings import Settings
from palette.stages.assignment import Assignment
from palette.stages.collect import Collected, read_collected
from palette.studies import RULE, Finished, SearchSpace, choose, run_study

ARTEFACT = Path("search") / "front.json"
JOURNAL = Path("search") / "study.journal"

Method = Literal["directional_ablation", "centred_ablation", "activation_addition"]


class SearchSettings(Settings):
    """Options of the stage search."""

    trials: int = Field(64, ge=1, description="trials of the study")
    methods: tuple[Method, ...] = Field(
        ("directional_ablation", "centred_ablation", "activation_addition"),
        min_length=1,
        description="interventions tried",
    )
    strength: tuple[float, float] = Field((0.5, 2.5), description="least and greatest strength")
    widths: tuple[int, ...] = Field((0, 1), min_length=1, description="sites edited beside the peak")
    target_prompts: int = Field(48, ge=1, description="validation prompts of the target")
    other_prompts: int = Field(8, ge=1, description="validation prompts a preserved or benign group")
    divergence_limit: float = Field(
        0.5, gt=0, description="benign divergence above which a trial is infeasible (nats a token)"
    )

    @model_validator(mode="after")
    def _least_before_greatest(self) -> SearchSettings:
        if self.strength[0] > self.strength[1]:
            raise ValueError("strength must be the least, then the greatest")
        return self


@dataclass(frozen=True)
class Member:
    """A member of the Pareto front."""

    trial: int
    intervention: Intervention
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The member as plain values."""
        return {
            "trial": self.trial,
            **dict(self.values),
            "intervention": self.intervention.to_json(),
        }


def search(assignment: Assignment, settings: SearchSettings) -> list[Member]:
    """Runs or resumes the study; writes ``search/front.json``; returns the front, the chosen first.

    Raises:
        PromptError: if the validation split lacks a role.
        SearchError: if no trial is feasible.
    """
    collected = read_collected(assignment.folder)
    objective = Objective(assignment, settings, collected)
    space = SearchSpace(
        methods=settings.methods,
        sites=tuple(range(1, assignment.backbone.layers + 1)),
        positions=tuple(range(-assignment.backbone.post_instruction, 0)),
        widths=settings.widths,
        strength=settings.strength,
    )
    with assignment.progress("search", settings.trials) as advance:
        trials = run_study(
            assignment.folder / JOURNAL,
            space,
            objective,
            trials=settings.trials,
            seed=assignment.seed,
            advance=advance,
        )
    front = [_member(trial) for trial in choose(trials).front]
    write_json(
        assignment.folder / ARTEFACT,
        {
            "rule": RULE,
            "trials": len(trials),
            "feasible": sum(trial.feasible for trial in trials),
            "backbone": objective.base,
            "front": [member.to_json() for member in front],
            "all": [{"trial": t.number, "feasible": t.feasible, **t.named} for t in trials],
        },
    )
    return front


def read_front(folder: Path) -> list[Member]:
    """The Pareto front in a run's folder, the chosen member first.

    Raises:
        OutputError: if it is missing or damaged.
    """
    found = []
    for member in read_json(folder / ARTEFACT)["front"]:
        values = {k: v for k, v in member.items() if k not in ("trial", "intervention")}
        found.append(Member(member["trial"], _intervention(member["intervention"]), values))
    return found


class Objective:
    """What a trial is worth: the same scores that the report prints, on the validation split."""

    def __init__(self, assignment: Assignment, settings: SearchSettings, collected: Collected) -> None:
        backbone = assignment.backbone
        pick = assignment.select
        target = pick("validation", Role.TARGET).capped(settings.target_prompts)
        kept = pick("validation", Role.PRESERVE, Role.FLOOR).capped(settings.other_prompts)
        benign = pick("validation", Role.BENIGN).capped(settings.other_prompts)
        self._backbone, self._settings, self._collected = backbone, settings, collected
        self._target = assignment.render(target.required("target validation"))
        self._kept = assignment.render(kept.required("preserved validation"))
        self._benign = assignment.render(benign.required("benign validation"))
        end = [backbone.stops[0]]
        self._replies = [r + end for r in greedy_replies(backbone, self._benign, 32)]
        self._logits = reply_logits(backbone, self._benign, self._replies)
        self.base = {
            "target_refusal_score": self._score(self._target),
            "preserved_refusal_score": self._score(self._kept),
        }

    @torch.no_grad()
    def __call__(self, params: Mapping[str, Any]) -> tuple[tuple[float, ...], float]:
        """The three objectives in nats, and by how much the benign divergence exceeds its limit."""
        intervention = _intervention(params)
        with intervening(self._backbone, self._collected.directions, intervention):
            changed = reply_logits(self._backbone, self._benign, self._replies)
            moved = divergence(self._logits, changed)["multi_token"]
            values = (self._score(self._target), self._score(self._kept), moved)
        return values, moved - self._settings.divergence_limit

    def _score(self, prompts: list[list[int]]) -> float:
        openings = self._collected.refusal_openings
        return mean_score(refusal_scores(self._backbone, prompts, openings))


def _intervention(params: Mapping[str, Any]) -> Intervention:
    peak = params["site"] if "site" in params else params["peak"]
    kernel = StrengthKernel(peak, params["width"], params["strength"])
    return Intervention(params["method"], params["position"], kernel)


def _member(trial: Finished) -> Member:
    return Member(trial.number, _intervention(trial.params), trial.named)
