"""What a trial of the search is worth: scores of teacher-forced passes, and no generated token.

Restricted prompts are scored by the refusal score (log-odds, in nats), benign ones by it and by the
divergence of the backbone's own replies (nats a token): the functions that the report uses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from palette.activations import Edits
from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.directions import Intervention
from palette.errors import SearchError
from palette.evaluation.baseline import Path, paths, prefix_scores
from palette.evaluation.subjects import kl
from palette.run import Run
from palette.search.settings import OBJECTIVES, Conditions, Limits, Scoring, objective_named
from palette.search.space import Collected, Finished, Objectives, Scored, dominates, losses
from palette.search.sweeps import Sweeper
from palette.shapes import Tensor

REPLY = -1
"""In the place of a path's number: the row of a benign prompt's own reply."""


@dataclass(frozen=True)
class TrialFigures:
    """What an objective is told of a trial."""

    scores: Mapping[str, float]
    """The mean refusal score, in nats, of ``target``, ``preserve``, ``floor`` and ``benign`` prompts."""
    divergence: float
    """The mean divergence over the backbone's own benign replies, in nats a token."""
    summary: Mapping[str, float]
    """What the constraints are put to, by name; of the backbone itself it stands in ``front.json``."""


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


@dataclass(frozen=True)
class ScoredPrompt:
    """One row of a panel: whose prompt it is, which one, and what the reply is made to begin with."""

    role: Role
    number: int
    path: int


@dataclass
class TrialScores:
    """What is known of a trial: scores by role and prompt, and the divergence of benign replies."""

    scores: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in Role})
    divergences: list[Tensor] = field(default_factory=list)


class Rung:
    """Some of the prompts, as a panel of rows, with what the backbone itself says to them."""

    def __init__(self, objective: Objective, chosen: Mapping[Role, Sequence[int]]) -> None:
        self._objective = objective
        self._rows = [
            ScoredPrompt(role, number, path)
            for role, numbers in chosen.items()
            for number in numbers
            for path in objective.paths_of(role)
        ]
        prompts = [objective.prompts[row.role][row.number] for row in self._rows]
        replies = [objective.reply(row) for row in self._rows]
        self._sweeper = Sweeper(objective.backbone, prompts, replies, objective.caching)
        self._base = {
            row: logits.clone()
            for swept in self._sweeper.sweep({})
            for row, logits in swept.items()
            if self._rows[row].path == REPLY
        }

    def measure(self, edits: Edits, found: TrialScores) -> None:
        """Adds what this rung's prompts say of a trial."""
        kept: dict[tuple[Role, Path], dict[int, Tensor]] = defaultdict(dict)
        for logits in self._sweeper.sweep(edits):
            if replies := [row for row in logits if row in self._base]:
                own, changed = (torch.cat([said[row] for row in replies]) for said in (self._base, logits))
                found.divergences.append(kl(own, changed))
            for number, said in logits.items():
                row, known = self._rows[number], self._objective.paths
                if row.path != REPLY or known == ((),):
                    path = known[max(0, row.path)]
                    kept[row.role, path][row.number] = said[: len(path) + 1]
        for role in Role:
            stacked = {
                path: torch.stack([rows[number] for number in sorted(rows)])
                for (whose, path), rows in kept.items()
                if whose is role
            }
            if stacked:
                found.scores[role] += prefix_scores(stacked, self._objective.prefixes).tolist()


class Objective:
    """Scores interventions on the validation split, rung by rung."""

    def __init__(
        self, run: Run, collected: Collected, names: Sequence[str], conditions: Conditions | None = None
    ) -> None:
        conditions = conditions or Conditions()
        scoring, self._limits, self.caching = conditions.scoring, conditions.limits, conditions.caching
        self._functions = {name: objective_named(name)[0] for name in names}
        self.wanted: Objectives = {name: objective_named(name)[1] for name in names}
        self.backbone, self._directions = run.backbone, collected.directions
        self.prefixes, self.paths = collected.refusal_prefixes, paths(collected.refusal_prefixes)
        self.prompts = _validation(run, scoring)
        self._first: list[tuple[float, ...]] = []
        end, most = self.backbone.stops[0], scoring.reply_tokens
        # A reply that ends in time is compared to its end; one that does not, as far as it was said.
        replies = greedy_replies(self.backbone, self.prompts[Role.BENIGN], most)
        self._replies = [[*reply, end] if len(reply) < most else reply for reply in replies]
        self._rungs = [Rung(self, chosen) for chosen in _divided(self.prompts, scoring.first_rung)]
        own = TrialScores()
        for rung in self._rungs:
            rung.measure({}, own)
        self.base = _figures(own).summary

    def paths_of(self, role: Role) -> list[int]:
        """The numbers of a role's paths, for each of which its prompts have a row: own replies if benign."""
        ways = list(range(len(self.paths)))
        if role is not Role.BENIGN:
            return ways
        # The reply's first token is predicted from the prompt alone, as the empty path's is.
        return [REPLY] if self.paths == ((),) else [REPLY, *ways]

    def reply(self, row: ScoredPrompt) -> list[int]:
        """What the reply of a row is made to be; its last token is predicted, not said."""
        if row.path == REPLY:
            return self._replies[row.number]
        path = self.paths[row.path]
        return [*path, 0] if path else []

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
        return Scored(values, excesses(self._limits, self.base, figures.summary), notes)

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


def excesses(limits: Limits, base: Mapping[str, float], summary: Mapping[str, float]) -> dict[str, float]:
    """By how much each limit is exceeded; satisfied where that is not positive.

    ``base`` and ``summary`` are of the backbone without and with the intervention. One that takes more
    from preserved or floor prompts than from the target opens the wrong thing.
    """
    target, preserved, floor = (
        base[name] - summary[name]
        for name in ("target_refusal_score", "preserved_refusal_score", "floor_refusal_score")
    )
    allowed = max(0.0, target) + limits.selectivity
    rise = summary["benign_false_refusals"] - base["benign_false_refusals"]
    return {
        "target_refusals": limits.relaxation - target,
        "benign_divergence": summary["benign_divergence"] - limits.divergence,
        "preserved_refusals": preserved - allowed,
        "floor_refusals": floor - allowed,
        "benign_false_refusals": rise - limits.false_refusals,
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
    return TrialFigures({role.value: _mean(each) for role, each in scores.items()}, divergence, summary)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _validation(run: Run, scoring: Scoring) -> dict[Role, list[list[int]]]:
    """The rendered validation prompts of each role.

    Raises:
        PromptError: if there is nothing to open, nothing to keep, or nothing to leave alone.
    """
    run.select("validation", Role.PRESERVE, Role.FLOOR).required("preserved validation")
    most = dict.fromkeys(Role, scoring.other_prompts) | {Role.TARGET: scoring.target_prompts}
    chosen = {role: run.select("validation", role).capped(most[role]) for role in Role}
    for role in (Role.TARGET, Role.BENIGN):
        chosen[role].required(f"{role.value} validation")
    return {role: run.render(prompts) for role, prompts in chosen.items()}


def _divided(prompts: Mapping[Role, Sequence[object]], share: float) -> Iterator[dict[Role, list[int]]]:
    """The numbers of the prompts of the first rung, spread over each role, and of the second."""
    stride = max(1, round(1 / share))
    yield {role: list(range(0, len(rows), stride)) for role, rows in prompts.items()}
    rest = {role: [i for i in range(len(rows)) if i % stride] for role, rows in prompts.items()}
    if any(rest.values()):
        yield rest
