"""Replies of both sides, judged: what became of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.evaluation.outcomes import SIDES, Outcome
from palette.evaluation.replies import Replies
from palette.judging.judge import Judge, Verdict
from palette.judging.rules import correct
from palette.prompts import Prompt, PromptSet


@dataclass(frozen=True)
class Judged:
    """What became of each prompt, and the verdicts by side."""

    outcomes: list[Outcome]
    verdicts: dict[str, list[Verdict]]


def judged(
    backbone: Backbone,
    rows: Sequence[Prompt] | PromptSet,
    roles: Sequence[Role],
    judge: Judge,
    replies: tuple[Replies, Replies],
) -> Judged:
    """What became of each row, out of the replies without and with what is measured."""
    questions = [row.asked for row in rows]
    texts = [[backbone.decode(reply) for reply in side] for side in replies]
    verdicts = [judge.verdicts(questions, side) for side in texts]
    sides = [list(zip(*pair, strict=True)) for pair in zip(texts, verdicts, strict=True)]
    outcomes = [
        _outcome(row, role, base, adapted)
        for row, role, base, adapted in zip(rows, roles, *sides, strict=True)
    ]
    return Judged(outcomes, dict(zip(SIDES, verdicts, strict=True)))


def _outcome(row: Prompt, role: Role, base: tuple[str, Verdict], adapted: tuple[str, Verdict]) -> Outcome:
    marked = row.answer is not None and role is not Role.FLOOR
    answer = row.answer or ""
    return Outcome(
        prompt_id=row.id,
        domain=row.domain,
        role=role,
        label_base=base[1].label,
        label_adapted=adapted[1].label,
        correct_base=correct(base[0], answer, base[1]) if marked else None,
        correct_adapted=correct(adapted[0], answer, adapted[1]) if marked else None,
    )
