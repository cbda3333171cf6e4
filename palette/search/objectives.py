"""What a trial of the search is worth: scores of teacher-forced passes, and no generated token.

Restricted prompts are scored by the refusal score (log-odds, in nats), benign ones by it and by the
divergence of the backbone's own replies (nats a token): the functions that the report uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from palette.authorisation import Role
from palette.directions import Intervention
from palette.errors import SearchError
from palette.run import Run
from palette.search.panels import Rung, TrialScores, in_rungs, panel_of
from palette.search.questions import QUESTIONS, drawn
from palette.search.settings import OBJECTIVES, TASK, Conditions, Limits, objective_named
from palette.search.space import Collected, Finished, Objectives, Scored, dominates, losses
from palette.search.sweeps import proven
from palette.threads import lanes


@dataclass(frozen=True)
class TrialFigures:
    """What an objective is told of a trial."""

    scores: Mapping[str, float]
    """The mean refusal score, in nats, of ``target``, ``preserve``, ``floor`` and ``benign`` prompts."""
    divergence: float
    """The mean divergence over the backbone's own benign replies, in nats a token."""
    summary: Mapping[str, float]
    """What the constraints are put to, by name; of the backbone itself it stands in ``front.json``."""
    lost: Mapping[str, float] = field(default_factory=dict)
    """The accuracy that each task of lm-eval among the objectives loses, as a share; below 0 it gains."""


def target_refusal_score(trial: TrialFigures) -> float:
    """The mean refusal score of authorised prompts, in nats."""
    return trial.summary["target_refusal_score"]


def preserved_refusal_score(trial: TrialFigures) -> float:
    """The mean refusal score of preserved and floor prompts, in nats; more is better."""
    return trial.summary["preserved_refusal_score"]


preserved_refusal_score.direction = "maximize"  # type: ignore[attr-defined]


def benign_divergence(trial: TrialFigures) -> float:
    """The mean divergence over the backbone's own benign replies, in nats a token."""
    return trial.divergence


class Objective:
    """Scores interventions on the validation split, rung by rung."""

    def __init__(
        self, run: Run, collected: Collected, names: Sequence[str], conditions: Conditions | None = None
    ) -> None:
        conditions = conditions or Conditions()
        self._limits = conditions.limits
        self._functions = {name: objective_named(name)[0] for name in names}
        self.wanted: Objectives = {name: objective_named(name)[1] for name in names}
        self._directions = collected.directions
        self._first: list[tuple[float, ...]] = []
        panel = panel_of(run, collected, conditions.scoring)
        self._benign = len(panel[Role.BENIGN])
        divided = list(in_rungs(panel, conditions.scoring.first_rung))
        twins = run.backbone.twins(lanes(run.backbone.model.device))
        every = [row for rows in divided for row in rows]
        asked, said = [row.prompt for row in every], [row.reply for row in every]
        caching = proven(run.backbone, asked, said, conditions.caching)
        tasks = [
            drawn(run.backbone, name, run.recipe.at_most(QUESTIONS), run.seed).divided(
                conditions.scoring.first_rung if divided[1:] else 1.0
            )
            for name in names
            if name.startswith(TASK)
        ]
        self._rungs = [
            Rung(twins, rows, caching, [task[rung] for task in tasks]) for rung, rows in enumerate(divided)
        ]
        own = TrialScores()
        for rung in self._rungs:
            rung.measure({}, own)
        self.base = _figures(own).summary

    def remember(self, trials: Iterable[Finished]) -> None:
        """Takes the first rungs of earlier trials as known."""
        self._first += [tuple(trial.notes["first_rung"]) for trial in trials if "first_rung" in trial.notes]

    def __call__(self, intervention: Intervention) -> Scored:
        """The objectives, constraints and notes of an intervention.

        All are scored on the first rung. One that is far beyond a limit there, or dominated by an
        earlier trial, goes no further and is infeasible: its scores are of few prompts.
        """
        edits, found = intervention.edits(self._directions), TrialScores()
        first, *later = self._rungs
        first.measure(edits, found)
        scored = self._scored(found, 0)
        if not later:
            return scored
        ahead = self._dominating(scored)
        # What breaks a limit may be better in everything and ends no other trial.
        feasible = all(excess <= 0 for excess in scored.constraints.values())
        notes = {}
        if feasible and all(map(math.isfinite, scored.values)):
            self._first.append(scored.values)
            notes = {"first_rung": list(scored.values)}
        if not ahead and not is_hopeless(self._limits, scored.constraints):
            for rung in later:
                rung.measure(edits, found)
            scored = self._scored(found, 1)
        constraints = {**scored.constraints, "first_rung": float(ahead)}
        return Scored(scored.values, constraints, {**scored.notes, **notes})

    def _dominating(self, scored: Scored) -> int:
        """How many earlier trials dominate this one at the first rung; none counts of a single objective."""
        mine = losses(scored.values, self.wanted)
        earlier = self._first if len(self.wanted) > 1 else []
        return sum(dominates(losses(other, self.wanted), mine) for other in earlier)

    def _scored(self, scores: TrialScores, rung: int) -> Scored:
        figures = _figures(scores)
        # The report shows our own objectives, whatever others were searched by.
        known = {"floor_refusal_score", *OBJECTIVES} - set(self.wanted)
        notes: dict[str, Any] = {"rung": rung, **{name: figures.summary[name] for name in sorted(known)}}
        values = tuple(self._value(name, figures) for name in self.wanted)
        return Scored(values, excesses(self._limits, self.base, figures.summary, self._benign), notes)

    def _value(self, name: str, figures: TrialFigures) -> float:
        try:
            return float(self._functions[name](figures))
        except Exception as error:  # A user's function may fail in any way.
            raise SearchError(
                "an objective must give a number for every trial",
                got=f"{type(error).__name__}: {error}",
                remedy="mend its function",
                where=f"search.objectives: {name}",
            ) from error


def excesses(
    limits: Limits, base: Mapping[str, float], summary: Mapping[str, float], benign: int
) -> dict[str, float]:
    """By how much each limit is exceeded; satisfied where that is not positive.

    ``base`` and ``summary`` are of the backbone without and with the intervention, on so many ``benign``
    prompts among others. One that takes more from preserved or floor prompts than from the target opens the
    wrong thing.
    """
    target, preserved, floor = (
        base[name] - summary[name]
        for name in ("target_refusal_score", "preserved_refusal_score", "floor_refusal_score")
    )
    allowed = max(0.0, target) + limits.selectivity
    share = base["benign_false_refusals"]
    rise = summary["benign_false_refusals"] - share
    # A backbone that refuses some of what it should answer refuses others with every edit: a standard error.
    chance = math.sqrt(share * (1 - share) / max(1, benign))
    return {
        "target_refusals": limits.relaxation - target,
        "benign_divergence": summary["benign_divergence"] - limits.divergence,
        "preserved_refusals": preserved - allowed,
        "floor_refusals": floor - allowed,
        "benign_false_refusals": rise - limits.false_refusals - chance,
    }


def is_hopeless(limits: Limits, excess: Mapping[str, float]) -> bool:
    """Whether a trial relaxes nothing, or is too far beyond a limit for more prompts to matter."""
    return not (
        excess["target_refusals"] <= 0
        and excess["benign_divergence"] <= (limits.hopeless - 1) * limits.divergence
        and excess["preserved_refusals"] <= (limits.hopeless - 1) * limits.selectivity
    )


def _figures(found: TrialScores) -> TrialFigures:
    scores = found.scores
    divergence = float(torch.cat(found.divergences).mean())
    summary = {
        "target_refusal_score": _mean(scores[Role.TARGET]),
        "preserved_refusal_score": _mean([*scores[Role.PRESERVE], *scores[Role.FLOOR]]),
        "floor_refusal_score": _mean(scores[Role.FLOOR]),
        "benign_divergence": divergence,
        "benign_false_refusals": _mean([float(score > 0) for score in scores[Role.BENIGN]]),
    }
    lost = {name: _mean(each) for name, each in found.lost.items()}
    return TrialFigures({role.value: _mean(each) for role, each in scores.items()}, divergence, summary, lost)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
