"""What a trial of the search is worth: scores of teacher-forced passes, and no generated token.

Restricted prompts are scored by the refusal score (log-odds, in nats), benign ones by it and by the
divergence of the backbone's own replies (nats a token): the functions that the report uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from palette.activations import Edits
from palette.authorisation import Role
from palette.backbones import Backbone, greedy_replies
from palette.backbones.continuous import GREEDY, Decoding
from palette.directions import Intervention
from palette.errors import SearchError
from palette.evaluation.refusal_ngrams import Tokens, refusal_scores
from palette.evaluation.subjects import kl
from palette.run import Run
from palette.search.questions import QUESTIONS, Questions, drawn
from palette.search.settings import OBJECTIVES, TASK, Caching, Conditions, Limits, Scoring, objective_named
from palette.search.space import Collected, Finished, Objectives, Scored, dominates, losses
from palette.search.sweeps import Sweeper, proven
from palette.shapes import Tensor
from palette.threads import beside, lanes


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


@dataclass(frozen=True)
class ScoredPrompt:
    """One row of a panel: a prompt, what the reply is made to be, and where it would turn into a refusal."""

    role: Role
    prompt: Tokens
    reply: Tokens
    """Its last token is predicted, not said."""
    marks: tuple[Tensor, Tensor]


@dataclass
class TrialScores:
    """What is known of a trial: scores by role and prompt, divergences of benign replies, what tasks lose."""

    scores: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in Role})
    divergences: list[Tensor] = field(default_factory=list)
    lost: dict[str, list[float]] = field(default_factory=dict)


class Rung:
    """Some of the prompts, as panels of rows, with what the backbone itself says to the benign ones.

    Each twin of the backbone runs a panel of its own, all of them at once. Questions of tasks come after.
    """

    def __init__(
        self,
        twins: Sequence[Backbone],
        rows: Sequence[ScoredPrompt],
        caching: Caching,
        questions: Sequence[Questions] = (),
    ) -> None:
        self._questions = questions
        # Of every length as many, so that all end at about the same time.
        longest = sorted(range(len(rows)), key=lambda number: -len(rows[number].prompt))
        kept = replace(caching, cache_gib=caching.cache_gib / len(twins))
        parts = [
            [rows[number] for number in sorted(longest[lane :: len(twins)])] for lane in range(len(twins))
        ]
        self._panels = [Panel(twin, part, kept) for twin, part in zip(twins, parts, strict=True) if part]

    def measure(self, edits: Edits, found: TrialScores) -> None:
        """Adds what this rung's prompts say of a trial."""
        pieces = [partial(panel.measured, edits) for panel in self._panels]
        for each in beside(pieces, len(pieces)):
            found.divergences += each.divergences
            for role, scores in each.scores.items():
                found.scores[role] += scores
        for task in self._questions:
            found.lost.setdefault(task.name, []).extend(task.lost(edits))


class Panel:
    """Rows that one twin of the backbone runs, again and again."""

    def __init__(self, backbone: Backbone, rows: Sequence[ScoredPrompt], caching: Caching) -> None:
        self._rows = rows
        self._sweeper = Sweeper(backbone, [r.prompt for r in rows], [r.reply for r in rows], caching)
        self._base = {
            number: logits.clone()
            for swept in self._sweeper.sweep({})
            for number, logits in swept.items()
            if rows[number].role is Role.BENIGN
        }

    def measured(self, edits: Edits) -> TrialScores:
        """What these rows say of a trial."""
        found, scores = TrialScores(), dict[int, float]()
        for logits in self._sweeper.sweep(edits):
            if benign := [number for number in logits if number in self._base]:
                own, changed = (torch.cat([said[n] for n in benign]) for said in (self._base, logits))
                found.divergences.append(kl(own, changed))
            marks = [self._rows[number].marks for number in logits]
            scores |= zip(logits, refusal_scores([*logits.values()], marks).tolist(), strict=True)
        for number in sorted(scores):
            found.scores[self._rows[number].role].append(scores[number])
        return found


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
        panel = _panel(run, collected, conditions.scoring)
        self._benign = len(panel[Role.BENIGN])
        divided = list(_divided(panel, conditions.scoring.first_rung))
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


def _panel(run: Run, collected: Collected, scoring: Scoring) -> dict[Role, list[ScoredPrompt]]:
    """The validation prompts of each role, and what their replies are made to be.

    - target: what the backbone says where it may not say what its refusals do, so that a relapse in
      mid-sentence counts as a refusal at the first word does;
    - preserve and floor: its own refusal, up to the token that tells it; nothing else is ever said there;
    - benign: its own reply.

    Raises:
        PromptError: if there is nothing to open, nothing to keep, or nothing to leave alone.
    """
    run.select("validation", Role.PRESERVE, Role.FLOOR).required("preserved validation")
    most = dict.fromkeys(Role, scoring.other_prompts) | {Role.TARGET: scoring.target_prompts}
    chosen = {role: run.select("validation", role).capped(most[role]) for role in Role}
    for role in (Role.TARGET, Role.BENIGN):
        chosen[role].required(f"{role.value} validation")
    ngrams, end = collected.refusal_ngrams, run.backbone.stops[0]
    told = max(run.recipe.floor_tokens, collected.floor_tokens)
    panel: dict[Role, list[ScoredPrompt]] = {role: [] for role in chosen}
    with run.progress("panel", sum(map(len, chosen.values()))) as advance:
        for role, prompts in chosen.items():
            rendered = run.render(prompts)
            limit = scoring.reply_tokens if role is Role.BENIGN else scoring.answer_tokens
            limit = limit if role in (Role.TARGET, Role.BENIGN) else told
            decoding = Decoding(barred=ngrams.after) if role is Role.TARGET else GREEDY
            replies = greedy_replies(run.backbone, rendered, limit, advance, decoding)
            for prompt, reply in zip(rendered, replies, strict=True):
                if role in (Role.TARGET, Role.BENIGN):
                    # A reply that ends in time is read to its end; one that does not, as far as it was said.
                    said = (*reply, end) if len(reply) < limit else tuple(reply)
                else:
                    said = tuple(reply[: (ngrams.place(reply) or 0) + 1]) or (end,)
                panel[role].append(ScoredPrompt(role, tuple(prompt), said, ngrams.marks(said)))
    return panel


def _divided(panel: Mapping[Role, Sequence[ScoredPrompt]], share: float) -> Iterator[list[ScoredPrompt]]:
    """The rows of the first rung, spread over each role, and those of the second."""
    stride = max(1, round(1 / share))
    yield [row for rows in panel.values() for row in rows[::stride]]
    if rest := [row for rows in panel.values() for i, row in enumerate(rows) if i % stride]:
        yield rest
