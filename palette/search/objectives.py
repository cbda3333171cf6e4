"""What a trial of the search is worth: scores of teacher-forced passes, and no generated token.

Restricted prompts are scored by the refusal score (log-odds, in nats), benign ones by it and by the
divergence of the backbone's own replies (nats a token): the functions that the report uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from palette.activations import Edits
from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.directions import Directions, Intervention
from palette.evaluation.refusal_score import Path, paths, prefix_scores
from palette.evaluation.subjects import kl
from palette.run import Run
from palette.search.choice import dominates
from palette.search.collected import Collected
from palette.search.constraints import excesses, is_hopeless
from palette.search.settings import Caching, LimitSettings, ScoringSettings
from palette.search.space import Finished, Scored
from palette.search.sweeps import Sweeper
from palette.shapes import Tensor

OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "target_refusal_score": "minimize",
    "preserved_refusal_score": "maximize",
    "benign_divergence": "minimize",
}
"""Each objective's name and Optuna's direction: nats, nats, nats a token."""

REPLY = -1
"""In the place of a path's number: the row of a benign prompt's own reply."""


@dataclass(frozen=True)
class Row:
    """One row of a panel: whose prompt it is, which one, and what the reply is made to begin with."""

    role: Role
    number: int
    path: int


@dataclass
class TrialScores:
    """What is known of a trial: scores by role and prompt, and the divergence of benign replies."""

    scores: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in Role})
    divergences: list[Tensor] = field(default_factory=list)
    logits: dict[Role, dict[Path, dict[int, Tensor]]] = field(
        default_factory=lambda: {role: {} for role in Role}
    )


class Rung:
    """Some of the prompts, as a panel of rows, with what the backbone itself says to them."""

    def __init__(self, objective: Objective, chosen: Mapping[Role, Sequence[int]]) -> None:
        self.rows = [
            Row(role, number, path)
            for role, numbers in chosen.items()
            for number in numbers
            for path in objective.rows_of(role)
        ]
        self._objective = objective
        prompts = [objective.prompts[row.role][row.number] for row in self.rows]
        replies = [objective.reply(row) for row in self.rows]
        self._panel = Sweeper(objective.backbone, prompts, replies, objective.caching)
        self._base = self._backbones_own() if objective.caching.base_logits else None

    def measure(self, trials: Sequence[Edits], scores: Sequence[TrialScores]) -> None:
        """Adds what this rung's prompts say of each trial."""
        base = self._backbones_own() if self._base is None else self._base
        for swept in self._panel.sweep(trials):
            replies = [row for row in swept.logits if row in base]
            for place, trial in enumerate(swept.trials):
                if replies:
                    own = torch.cat([base[row] for row in replies])
                    said = torch.cat([swept.logits[row][place] for row in replies])
                    scores[trial].divergences.append(kl(own, said))
                for row, logits in swept.logits.items():
                    self._note(scores[trial], self.rows[row], logits[place])
        for found in scores:
            self._score(found)

    def _note(self, found: TrialScores, row: Row, logits: Tensor) -> None:
        """Keeps the logits by which a prompt's refusal is scored."""
        if row.path == REPLY and self._objective.paths != ((),):
            return
        path = self._objective.paths[max(0, row.path)]
        found.logits[row.role].setdefault(path, {})[row.number] = logits[: len(path) + 1]

    def _score(self, found: TrialScores) -> None:
        """Turns the kept logits into scores, all prompts of a role at once."""
        for role, by_path in found.logits.items():
            if by_path:
                stacked = {
                    path: torch.stack([rows[n] for n in sorted(rows)]) for path, rows in by_path.items()
                }
                found.scores[role] += prefix_scores(stacked, self._objective.prefixes).tolist()
            by_path.clear()

    def _backbones_own(self) -> dict[int, Tensor]:
        """The backbone's own logits of every benign reply, by row."""
        return {
            row: logits[0].clone()
            for swept in self._panel.sweep([{}])
            for row, logits in swept.logits.items()
            if self.rows[row].path == REPLY
        }


class Objective:
    """Scores interventions on the validation split, rung by rung."""

    def __init__(
        self,
        run: Run,
        collected: Collected,
        panel: ScoringSettings,
        limits: LimitSettings,
        caching: Caching,
    ) -> None:
        self.backbone, self.caching, self._panel = run.backbone, caching, panel
        self._first: list[tuple[float, ...]] = []
        self._limits, self._directions = limits, collected.directions
        self.prefixes, self.paths = collected.refusal_prefixes, paths(collected.refusal_prefixes)
        self.prompts = _validation(run, panel)
        end = self.backbone.stops[0]
        # A reply that ends in time is compared to its end; one that does not, as far as it was said.
        said = greedy_replies(self.backbone, self.prompts[Role.BENIGN], panel.reply_tokens)
        self._replies = [[*reply, end] if len(reply) < panel.reply_tokens else reply for reply in said]
        self._rungs = [Rung(self, chosen) for chosen in _divided(self.prompts, panel.first_rung)]
        own = TrialScores()
        for rung in self._rungs:
            rung.measure([{}], [own])
        self.base = self._summary(own)

    @property
    def directions(self) -> Directions:
        """The candidate directions."""
        return self._directions

    def rows_of(self, role: Role) -> list[int]:
        """The rows that a prompt of a role has: its own reply if benign, and every path."""
        ways = list(range(len(self.paths)))
        if role is not Role.BENIGN:
            return ways
        # The reply's first token is predicted from the prompt alone, as the empty path's is.
        return [REPLY] if self.paths == ((),) else [REPLY, *ways]

    def reply(self, row: Row) -> list[int]:
        """What the reply of a row is made to be; its last token is predicted, not said."""
        if row.path == REPLY:
            return self._replies[row.number]
        path = self.paths[row.path]
        return [*path, 0] if path else []

    def remember(self, trials: Iterable[Finished]) -> None:
        """Takes the first rungs of earlier trials as known."""
        self._first += [tuple(trial.notes["first_rung"]) for trial in trials if "first_rung" in trial.notes]

    def __call__(self, interventions: Sequence[Intervention]) -> list[Scored]:
        """The objectives, constraints and notes of each intervention.

        All are scored on the first rung. One that is far beyond a limit there, or dominated by
        several earlier trials, goes no further and is infeasible: its scores are of few prompts.
        """
        edits = [intervention.edits(self._directions) for intervention in interventions]
        found = [TrialScores() for _ in interventions]
        first, *later = self._rungs
        first.measure(edits, found)
        scored = [self._scored(each, 0) for each in found]
        if not later:
            return scored
        ahead = [self._dominated(score) for score in scored]
        going = [
            i
            for i, score in enumerate(scored)
            if ahead[i] <= 0 and not is_hopeless(self._limits, score.constraints)
        ]
        for rung in later if going else []:
            rung.measure([edits[i] for i in going], [found[i] for i in going])
        for i, score in enumerate(scored):
            known = self._scored(found[i], 1) if i in going else score
            constraints = {**known.constraints, "first_rung": float(ahead[i])}
            notes = dict(known.notes)
            # What breaks a limit may be better in everything and ends no other trial.
            if all(excess <= 0 for excess in score.constraints.values()):
                self._first.append(score.values)
                notes["first_rung"] = list(score.values)
            scored[i] = Scored(known.values, constraints, notes)
        return scored

    def _dominated(self, score: Scored) -> int:
        """By how many too many earlier trials this one is dominated at the first rung; else not positive."""
        losses = _losses(score.values)
        count = sum(dominates(_losses(other), losses) for other in self._first)
        return count - self._panel.dominating + 1

    def _scored(self, found: TrialScores, rung: int) -> Scored:
        summary = self._summary(found)
        values = tuple(summary[name] for name in OBJECTIVES)
        notes: dict[str, Any] = {"rung": rung, "floor_refusal_score": summary["floor_refusal_score"]}
        return Scored(values, excesses(self._limits, self.base, summary), notes)

    def _summary(self, found: TrialScores) -> dict[str, float]:
        benign = found.scores[Role.BENIGN]
        return {
            "target_refusal_score": _mean(found.scores[Role.TARGET]),
            "preserved_refusal_score": _mean([*found.scores[Role.PRESERVE], *found.scores[Role.FLOOR]]),
            "floor_refusal_score": _mean(found.scores[Role.FLOOR]),
            "benign_divergence": float(torch.cat(found.divergences).mean()),
            "benign_false_refusals": _mean([float(score > 0) for score in benign]),
        }


def _losses(values: Sequence[float]) -> tuple[float, ...]:
    ways = OBJECTIVES.values()
    return tuple(v if way == "minimize" else -v for v, way in zip(values, ways, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _validation(run: Run, panel: ScoringSettings) -> dict[Role, list[list[int]]]:
    """The rendered validation prompts of each role.

    Raises:
        PromptError: if there is nothing to open, nothing to keep, or nothing to leave alone.
    """
    pick = run.select
    pick("validation", Role.PRESERVE, Role.FLOOR).required("preserved validation")
    most = {role: panel.target_prompts if role is Role.TARGET else panel.other_prompts for role in Role}
    chosen = {role: pick("validation", role).capped(most[role]) for role in Role}
    for role in (Role.TARGET, Role.BENIGN):
        chosen[role].required(f"{role.value} validation")
    return {role: run.render(prompts) for role, prompts in chosen.items()}


def _divided(prompts: Mapping[Role, Sequence[object]], share: float) -> Iterator[dict[Role, list[int]]]:
    """The numbers of the prompts of the first rung, spread over each role, and of the second."""
    stride = max(1, round(1 / share))
    first = {role: list(range(0, len(found), stride)) for role, found in prompts.items()}
    yield first
    rest = {role: [i for i in range(len(found)) if i % stride] for role, found in prompts.items()}
    if any(rest.values()):
        yield rest
