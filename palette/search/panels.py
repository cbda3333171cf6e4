"""The rows that every trial is scored on, as panels of twins, and what each says of a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from palette.activations import Edits
from palette.authorisation import Role
from palette.backbones import Backbone, greedy_replies
from palette.backbones.continuous import GREEDY, Decoding
from palette.evaluation.refusal_ngrams import Tokens, refusal_scores
from palette.evaluation.subjects import kl
from palette.run import Run
from palette.search.questions import Questions
from palette.search.settings import Caching, Scoring
from palette.search.space import Collected
from palette.search.sweeps import Sweeper
from palette.shapes import Tensor
from palette.threads import beside


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


def panel_of(run: Run, collected: Collected, scoring: Scoring) -> dict[Role, list[ScoredPrompt]]:
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


def in_rungs(panel: Mapping[Role, Sequence[ScoredPrompt]], share: float) -> Iterator[list[ScoredPrompt]]:
    """The rows of the first rung, spread over each role, and those of the second."""
    stride = max(1, round(1 / share))
    yield [row for rows in panel.values() for row in rows[::stride]]
    if rest := [row for rows in panel.values() for i, row in enumerate(rows) if i % stride]:
        yield rest
