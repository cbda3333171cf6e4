"""Lectures: what a student is given to learn from, made from the backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import SearchError
from palette.evaluation.judge import RuleJudge
from palette.prompts import Prompt
from palette.settings import Settings
from palette.stages.assignment import Assignment
from palette.stages.collect import Collected
from palette.stages.search import Member
from palette.training import BatchShares, Example
from palette.training.teachers import (
    Lesson,
    Reply,
    believed,
    common_opening,
    complete,
    intervened_replies,
    lessons,
    opening_of,
)


class LectureSettings(Settings):
    """Which replies are taught, and which prompts are kept as they are."""

    teachers: int = Field(6, ge=1, description="front members that teach, of distinct sites")
    opening: int = Field(4, ge=1, description="tokens a teacher says under its intervention")
    reply_tokens: int = Field(48, ge=4, description="tokens of a taught or kept reply at most")
    floor_tokens: int = Field(12, ge=4, description="the same for floor prompts: no content")
    agreement: int = Field(2, ge=1, description="teachers that must give the same reply")
    least_believed: float = Field(
        0.25, ge=0, le=1, description="share of target prompts taught all the same, the likeliest replies"
    )
    prompts: int = Field(240, ge=1, description="train prompts at most, a domain, kind and tier")


@dataclass(frozen=True)
class Lectures:
    """What the student is given: examples, and which of them belong to which role."""

    examples: list[Example]
    pools: dict[str, list[int]]
    record: dict[str, Any]


def prepare(
    assignment: Assignment,
    settings: LectureSettings,
    collected: Collected,
    front: Sequence[Member],
) -> Lectures:
    """The student's examples, made from the backbone alone.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
    """
    backbone = assignment.backbone
    rows = assignment.select("train", *Role).capped(settings.prompts)
    groups: dict[str, list[list[int]]] = {name: [] for name in BatchShares.model_fields}
    for row, prompt in zip(rows, assignment.render(rows), strict=True):
        groups[_pool(assignment, row)].append(prompt)
    target = groups.pop("target")
    end = backbone.stops[0]
    kept: dict[str, list[list[int]]] = {}
    with assignment.progress("replies", len(rows)) as advance:
        for name, prompts in groups.items():
            limit = settings.floor_tokens if "floor" in name else settings.reply_tokens
            kept[name] = greedy_replies(backbone, prompts, limit, advance)
        answered = [*kept["near_benign"], *kept["benign"]]
        own = common_opening(answered)
        found = _lessons(assignment, settings, collected, front, (target, own))
        advance(len(target))
    whole = believed(found, settings.agreement, settings.least_believed)
    # Where no reply is believed, the opening is taught alone: the backbone goes on by itself.
    examples = [
        Example(tuple(prompt), (*sure.reply, end) if sure else opening_of(lessons, own), taught=True)
        for prompt, sure, lessons in zip(target, whole, found, strict=True)
        if sure or opening_of(lessons, own)
    ]
    if not examples:
        raise SearchError(
            "a student must have something to learn",
            got=f"no reply and no opening for {len(target)} target prompts",
            remedy="bring benign prompts that the backbone answers",
        )
    pools = {"target": list(range(len(examples)))}
    for name, replies in kept.items():
        start = len(examples)
        examples += [
            Example(tuple(prompt), _ended(reply, settings, name, end), taught=False)
            for prompt, reply in zip(groups[name], replies, strict=True)
        ]
        pools[name] = list(range(start, len(examples)))
    record = {
        "target_prompts": len(target),
        "believed": sum(lesson is not None for lesson in whole),
        "examples": {name: len(pool) for name, pool in pools.items()},
    }
    return Lectures(examples, pools, record)


def _pool(assignment: Assignment, row: Prompt) -> str:
    """The pool of examples that a prompt belongs to."""
    role = assignment.authorisation.role(row)
    near = row.domain in assignment.authorisation.domains
    return f"near_{role}" if near and role in (Role.FLOOR, Role.BENIGN) else str(role)


def _ended(reply: list[int], settings: LectureSettings, pool: str, end: int) -> Reply:
    """A kept reply with its end token, unless it was cut off before its end."""
    limit = settings.floor_tokens if "floor" in pool else settings.reply_tokens
    return (*reply, end) if len(reply) < limit else tuple(reply)


def _lessons(
    assignment: Assignment,
    settings: LectureSettings,
    collected: Collected,
    front: Sequence[Member],
    asked: tuple[list[list[int]], Reply],
) -> list[list[Lesson]]:
    """The believable replies to the target prompts, from the front's members and the own opening."""
    prompts, own = asked
    backbone = assignment.backbone
    judge = RuleJudge(openings=collected.judge_openings)

    def refused(replies: Sequence[Reply]) -> list[bool]:
        texts = [backbone.decode(list(reply)) for reply in replies]
        return [v.label.refused or v.label.broken for v in judge.verdicts([""] * len(texts), texts)]

    distinct: dict[tuple[int, str], Member] = {}
    for member in front:
        key = (member.intervention.kernel.peak, member.intervention.method)
        distinct.setdefault(key, member)
    teachers = [complete(backbone, prompts, [own] * len(prompts), len(own), settings.reply_tokens)]
    for member in list(distinct.values())[: settings.teachers]:
        teachers.append(
            intervened_replies(
                backbone,
                collected.directions,
                member.intervention,
                prompts,
                settings.opening,
                settings.reply_tokens,
            )
        )
    return lessons(backbone, prompts, teachers, refused)
