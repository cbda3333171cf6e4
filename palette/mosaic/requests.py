"""A split asked under subsets of active categories: rows, replies, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.evaluation.replies import Lengths
from palette.evaluation.reply_cache import Responses
from palette.judging.judge import Judge
from palette.judging.rules import correct
from palette.mosaic.mounting import Controlled
from palette.mosaic.outcomes import TokenOutcome
from palette.mosaic.settings import TokenEvaluateSettings
from palette.mosaic.tokens import Sign
from palette.prompts import Prompt
from palette.run import Run

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """The rows of a split, rendered, with the backbone's own replies."""

    rows: Sequence[Prompt]
    prompts: list[list[int]]
    own: list[list[int]]
    roles: list[Role]
    correct: list[bool | None]
    """Whether each own reply is right; None where there is no answer, and on the floor."""


def ask(run: Run, settings: TokenEvaluateSettings, sign: Sign) -> Asked:
    """The split's prompts with the backbone's own replies.

    Raises:
        PromptError: if the split has no prompt.
    """
    rows = run.answered_prompts.split(settings.split).capped(settings.prompts).required(settings.split)
    prompts, backbone = run.render(rows), run.backbone
    roles = [run.authorisation.role(row) if sign == "authorise" else Role.BENIGN for row in rows]
    own = replies_of(backbone, settings, prompts, roles)
    marks = [
        None if row.answer is None or role is Role.FLOOR else correct(backbone.decode(reply), row.answer)
        for row, role, reply in zip(rows, roles, own, strict=True)
    ]
    return Asked(list(rows), prompts, own, roles, marks)


def under(
    controlled: Controlled, settings: TokenEvaluateSettings, asked: Asked, subset: Subset
) -> list[list[int]]:
    """The reply to every prompt under one subset."""
    prompts = [controlled.prefixed(prompt, subset) for prompt in asked.prompts]
    return replies_of(controlled, settings, prompts, asked.roles)


def judged(
    backbone: Backbone,
    about: tuple[Sequence[str], str],
    judge: Judge,
    asked: Asked,
    subset: Subset,
    replies: Sequence[list[int]],
) -> list[TokenOutcome]:
    """What became of every prompt under one subset; ``about`` are the known categories and the sign."""
    texts = [backbone.decode(reply) for reply in replies]
    verdicts = judge.verdicts([row.asked for row in asked.rows], texts)
    known, sign = about
    found = []
    for i, row in enumerate(asked.rows):
        group = group_of(row, asked.roles[i], subset, known, sign)
        opposite = {"active": sign == "restrict", "inactive": sign == "authorise"}
        right = None if asked.correct[i] is None else correct(texts[i], row.answer or "", verdicts[i])
        found.append(
            TokenOutcome(
                active=subset,
                prompt_id=row.id,
                domain=row.domain,
                group=group,
                withheld=opposite.get(group, group in ("floor", "preserved")),
                refused=verdicts[i].label.refused,
                broken=verdicts[i].label.broken,
                same=replies[i] == asked.own[i],
                correct=right,
                correct_base=asked.correct[i],
            )
        )
    return found


def group_of(row: Prompt, role: Role, subset: Subset, known: Sequence[str], sign: str) -> str:
    """Which prompts a row belongs to under a subset: active, inactive, alike, neutral, floor, preserved."""
    if role is Role.FLOOR:
        return "floor"
    if row.kind == "restricted" and row.domain in known and (sign == "restrict" or role is Role.TARGET):
        return "active" if row.domain in subset else "inactive"
    if row.kind == "restricted" and sign == "authorise":
        return "preserved"
    return "alike" if row.domain in known and sign == "restrict" else "neutral"


def replies_of(
    backbone: Backbone,
    settings: TokenEvaluateSettings,
    prompts: Sequence[list[int]],
    roles: Sequence[Role],
) -> list[list[int]]:
    """The greedy reply to each prompt; floor prompts get a few tokens only."""
    limits = Lengths(settings.reply_tokens, settings.floor_tokens).of(roles)
    return Responses().read(backbone, None, prompts, limits)


__all__ = ["Asked", "Subset", "ask", "group_of", "judged", "replies_of", "under"]
