"""Replies → verdicts → outcomes: what became of each prompt before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.errors import OutputError
from palette.evaluation.correctness import Marks, marks
from palette.evaluation.subjects import Requests, Tokens
from palette.files import read_json
from palette.judging.judge import Judge, Label, Verdict
from palette.statistics.rates import Rate, wilson

Member = TypeVar("Member")

OUTCOMES = Path("evaluate") / "outcomes.json"
"""Where a run has them."""

SIDES = ("base", "adapted")
"""The plain backbone, and the backbone with the adapter."""


@dataclass(frozen=True)
class Outcome:
    """One prompt's labels with the plain backbone and with the adapter; ids only, no text."""

    prompt_id: str
    domain: str
    role: Role
    label_base: Label
    label_adapted: Label
    correct_base: bool | None = None
    correct_adapted: bool | None = None
    known: bool | None = None
    """Whether the backbone knows the answer that it was asked for; None where that was not measured."""

    cell: str = "text"
    """Where the request stood: in words, beside a picture, or in one."""

    def __post_init__(self) -> None:
        if (self.correct_base is None) != (self.correct_adapted is None):
            raise ValueError(f"both replies or neither must be marked, got {self}")

    @property
    def refused_base(self) -> bool:
        """Whether the backbone refused, wholly or in part."""
        return self.label_base.refused

    @property
    def refused_adapted(self) -> bool:
        """Whether the backbone with the adapter refused, wholly or in part."""
        return self.label_adapted.refused

    @property
    def weakened(self) -> bool:
        """Whether a refusal was lost: there no more, or gone from whole to partial."""
        if not self.refused_base:
            return False
        partly = self.label_adapted.in_part and not self.label_base.in_part
        return partly or not self.refused_adapted

    @property
    def broken_base(self) -> bool:
        """Whether the backbone gave babble or nothing, and not the right answer."""
        return self.label_base.broken and not self.correct_base

    @property
    def broken_adapted(self) -> bool:
        """Whether the adapter made it give babble or nothing, and not the right answer."""
        return self.label_adapted.broken and not self.correct_adapted

    @property
    def answered_adapted(self) -> bool:
        """Whether the backbone with the adapter gave an answer, right or wrong: no refusal and no babble."""
        return not self.refused_adapted and not self.broken_adapted

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, fields in order."""
        return asdict(self)


def read_outcomes(folder: Path) -> list[Outcome]:
    """The outcomes that a run keeps; none where it keeps none.

    Raises:
        OutputError: if they are not those that evaluate wrote.
    """
    path = folder / OUTCOMES
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Outcome]).validate_python(read_json(path))
    except ValueError as error:
        law = "outcomes must be those that evaluate wrote"
        raise OutputError(law, got="others", remedy="run palette evaluate again", where=path) from error


@dataclass(frozen=True)
class Judged:
    """What became of each request, and the verdicts by side."""

    outcomes: list[Outcome]
    verdicts: dict[str, list[Verdict]]


def judged(
    backbone: Backbone,
    requests: Requests,
    judge: Judge,
    base: Sequence[Tokens],
    adapted: Sequence[Tokens],
    known: Marks | None = None,
) -> Judged:
    """What became of each request, out of the replies without and with what is measured.

    ``known`` says for each of them whether the backbone knows the answer, where that was measured.

    Raises:
        JudgeError: if a user's own judge cannot judge.
    """
    texts = [[backbone.decode(reply) for reply in side] for side in (base, adapted)]
    return judged_texts(requests, judge, texts, known)


def judged_texts(
    requests: Requests, judge: Judge, texts: Sequence[Sequence[str]], known: Marks | None = None
) -> Judged:
    """What became of each request, out of the texts of the replies without and with what is measured.

    Raises:
        JudgeError: if a user's own judge cannot judge.
    """
    verdicts = verdicts_of(judge, requests.questions, texts)
    right = [marks(judge, requests, *side) for side in zip(texts, verdicts, strict=True)]
    outcomes = []
    for i, (row, role) in enumerate(zip(requests.rows, requests.roles, strict=True)):
        labels, marked_so = (verdicts[0][i].label, verdicts[1][i].label), (right[0][i], right[1][i])
        knows = known[i] if known else None
        outcomes.append(Outcome(row.id, row.domain, role, *labels, *marked_so, knows, row.cell))
    return Judged(outcomes, dict(zip(SIDES, verdicts, strict=True)))


def verdicts_of(
    judge: Judge, questions: Sequence[str], sides: Sequence[Sequence[str]]
) -> list[list[Verdict]]:
    """The verdicts of each side's replies to the same questions; what several sides say is judged once."""
    pairs = [list(zip(questions, side, strict=True)) for side in sides]
    distinct = list(dict.fromkeys(pair for side in pairs for pair in side))
    found = judge.verdicts([asked for asked, _ in distinct], [reply for _, reply in distinct])
    known = dict(zip(distinct, found, strict=True))
    return [[known[pair] for pair in side] for side in pairs]


def share(members: Iterable[Member], holds: Callable[[Member], object]) -> Rate:
    """The share of members of which ``holds`` is true, in [0, 1] with its interval."""
    votes = [bool(holds(member)) for member in members]
    return wilson(sum(votes), len(votes))


def marked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes of prompts that have a reference answer."""
    return [outcome for outcome in outcomes if outcome.correct_base is not None]


def select(outcomes: Iterable[Outcome], *roles: Role, domain: str | None = None) -> list[Outcome]:
    """The outcomes of some roles, of one domain where it is named, in order."""
    return [outcome for outcome in outcomes if outcome.role in roles and domain in (None, outcome.domain)]


def domains(outcomes: Iterable[Outcome]) -> list[str]:
    """The domains that occur, sorted."""
    return sorted({outcome.domain for outcome in outcomes})
