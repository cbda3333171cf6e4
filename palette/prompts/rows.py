"""A prompt with its labels, sets of prompts, by what a prompt is known again, and what errors show of it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from palette.errors import PromptError
from palette.fingerprints import canonical, fingerprint
from palette.prompts.identity import identifying_text
from palette.prompts.pictures import Picture, shared_out, without_marks

Split = Literal["train", "validation", "test"]
Kind = Literal["restricted", "benign"]
Tier = Literal["A", "B", "C"]
Cell = Literal["text", "blank", "unrelated", "picture"]
Message = dict[str, Any]
"""A role, its content, and the ``pictures`` that the marks in it stand for, where there are some."""

DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.15
"""How rows without a ``split`` are divided by a hash of their prompt; the rest is the test split."""

TIERS, SPLITS = ("C", "B", "A", None), ("test", "validation", "train")
"""Tiers and splits in the order in which overlapping prompts are kept."""
LONGEST, LONGEST_ID = 24, 160
"""Characters of the longest label that an error shows, and of an id, which has a source's name before it."""
NAMED = 8
"""Ids, or pairs of them, that an error names at most."""


Value = TypeVar("Value")


@dataclass(frozen=True)
class Prompt:
    """One row of a prompt file. ``answer`` is the reference reply, which only evaluate may read.

    Neither it nor the prompt's text is part of ``repr``, which ends in logs and tracebacks.
    """

    id: str
    domain: str
    prompt: str | tuple[tuple[tuple[str, str], ...], ...] = field(repr=False)
    kind: Kind
    split: Split
    answer: str | None = field(default=None, repr=False)
    tier: Tier | None = None
    hazard: str | None = None
    pictures: tuple[Picture, ...] = ()
    """What the marks in the prompt's words stand for."""
    shown: Cell | None = None
    """What its pictures have to do with the request, where that is stated; ``cell`` where it is not."""
    variants: tuple[str, ...] = field(default=(), repr=False)
    """Other replies that are as right as ``answer``."""

    @property
    def accepted(self) -> tuple[str, ...]:
        """The reference reply and its variants; none where there is no answer."""
        return () if self.answer is None else (self.answer, *self.variants)

    @property
    def cell(self) -> Cell:
        """Where the request stands: in words alone, beside a picture that asks for nothing, or in one."""
        return self.shown or ("picture" if self.pictures else "text")

    @property
    def request(self) -> str:
        """The prompt's last user message, which a judge may read beside the reply."""
        words = [
            m["content"] for m in messages(self) if m["role"] == "user" and isinstance(m["content"], str)
        ]
        return without_marks(words[-1]) if words else ""


def messages(prompt: Prompt) -> list[Message]:
    """The prompt as chat messages; a plain text is one user message."""
    if isinstance(prompt.prompt, str):
        chat: list[Message] = [{"role": "user", "content": prompt.prompt}]
    else:
        chat = [dict(message) for message in prompt.prompt]
    if prompt.pictures:
        shown = shared_out(prompt.pictures, [one["content"] for one in chat])
        chat = [one | ({"pictures": own} if own else {}) for one, own in zip(chat, shown, strict=True)]
    return chat


@dataclass(frozen=True)
class PromptSet:
    """Prompts of several domains, ordered by domain and then as their files order them."""

    rows: tuple[Prompt, ...]

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts, in order."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self.rows)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains, sorted."""
        return tuple(sorted({row.domain for row in self.rows}))

    @property
    def requests(self) -> list[str]:
        """The last user message of each prompt, in order."""
        return [row.request for row in self.rows]

    @property
    def fingerprint(self) -> str:
        """The identity of the rows, without their reference answers."""
        return fingerprint([_identifying(row) for row in self.rows])

    def where(self, keep: Callable[[Prompt], bool]) -> PromptSet:
        """The prompts for which ``keep`` is true."""
        return PromptSet(tuple(row for row in self.rows if keep(row)))

    def split(self, name: Split) -> PromptSet:
        """The prompts of one split."""
        return self.where(lambda row: row.split == name)

    def capped(self, most: int) -> PromptSet:
        """At most ``most`` prompts of each (domain, kind, tier), spread evenly over the rows."""
        groups: dict[tuple[str, str, str | None], list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault((row.domain, row.kind, row.tier), []).append(index)
        kept: set[int] = set()
        for indices in groups.values():
            kept.update(indices[i] for i in spread(len(indices), most))
        return PromptSet(tuple(self.rows[i] for i in sorted(kept)))

    def without_answers(self) -> PromptSet:
        """The same prompts with their reference answers taken off."""
        return PromptSet(tuple(replace(row, answer=None, variants=()) for row in self.rows))

    def in_words(self) -> PromptSet:
        """This set, if all of it can be asked in words alone.

        Raises:
            PromptError: if a prompt is asked with a picture, without which it would be another one.
        """
        seen = [row.id for row in self.rows if row.pictures]
        if seen:
            raise PromptError(
                "a prompt with a picture must be asked of a model that sees",
                got=f"{len(seen)} with a picture, the first {seen[0]!r}",
                remedy="leave those rows out, or move a public set away from its images",
            )
        return self

    def required(self, name: str) -> PromptSet:
        """This set, if it has a prompt.

        Raises:
            PromptError: if it is empty.
        """
        if not self.rows:
            raise PromptError(
                "every role needs at least one prompt", got=f"no {name} prompt", remedy="add rows for it"
            )
        return self


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the places 0 to ``count`` - 1, spread evenly."""
    kept = min(most, count)
    return [i * count // kept for i in range(kept)]


def split_by_hash(digest: str) -> Split:
    """The split of a row that names none, from a hash of its prompt."""
    share = int(digest[:8], 16) / 0x100000000
    if share < TRAIN_SHARE:
        return "train"
    return "validation" if share < TRAIN_SHARE + VALIDATION_SHARE else "test"


def case_folded_hash(prompt: Prompt) -> str:
    """A SHA-256 (hex) of the prompt that ignores case and spacing; it divides the rows of a folder."""
    said = [[m["role"], " ".join(m["content"].casefold().split())] for m in messages(prompt)]
    text = canonical([said, _digests(prompt)] if prompt.pictures else said)
    return hashlib.sha256(text.encode()).hexdigest()


def normalised_hash(prompt: Prompt) -> str:
    """A SHA-256 (hex) of the prompt's normalised text, by which it is known again in another set.

    Case, spacing, punctuation and invisible characters make no other prompt; marks on letters, symbols and
    operators do, and so do its roles, turns and image.
    """
    turns = [(m["role"], identifying_text(m["content"])) for m in messages(prompt)]
    if not any(text for _, text in turns):
        return case_folded_hash(prompt)
    return hashlib.sha256(canonical([turns, _digests(prompt)]).encode()).hexdigest()


def _identifying(prompt: Prompt) -> list[object]:
    """The values of a row that make it what it is; what came later, where it is stated."""
    values = {**vars(prompt), "answer": None, "pictures": _digests(prompt)}
    return [
        value
        for name, value in values.items()
        if name != "variants" and not (name == "shown" and value is None)
    ]


def _digests(prompt: Prompt) -> list[str] | None:
    """What tells the pictures of a prompt, whatever they are called and wherever they lie."""
    return [picture.digest for picture in prompt.pictures] or None


def normalised_text(text: str) -> str:
    """The letters and digits alone of a text in Unicode's NFKC and one case, others as single spaces.

    It finds a text inside another one; what tells two prompts apart is ``identifying_text``.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = (mark for mark in folded if unicodedata.category(mark) != "Cf")
    return " ".join("".join(mark if mark.isalnum() else " " for mark in visible).split())


def repeated_prompts(prompts: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Each prompt that stands again, behind the one that is kept in its stead, in order.

    Kept is the strictest: restricted before benign, then the stricter tier; then that of the test
    split, then validation; then the first. So no overlap ever loosens a label, or trains on a test.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(normalised_hash(prompt), []).append(prompt)
    pairs = []
    for group in groups.values():
        kept = min(
            group, key=lambda row: (row.kind == "benign", TIERS.index(row.tier), SPLITS.index(row.split))
        )
        pairs += [(kept, other) for other in group if other is not kept]
    return pairs


def require_distinct(prompts: Iterable[Prompt], where: object, remedy: str) -> None:
    """Returns when every prompt stands once.

    Raises:
        PromptError: if some stand again: how many, how many of them in another split, and their ids.
    """
    if not (pairs := repeated_prompts(prompts)):
        return
    crossing = sum(kept.split != other.split for kept, other in pairs)
    names = [(redacted(kept.id, LONGEST_ID), redacted(other.id, LONGEST_ID)) for kept, other in pairs]
    listed = [f"{kept} twice" if kept == other else f"{other} like {kept}" for kept, other in names]
    raise PromptError(
        "a prompt must stand once, whatever its case, spacing and punctuation",
        got=f"{len(pairs)} that stand again, {crossing} of them in another split ({first_of(listed)})",
        remedy=remedy,
        where=where,
    )


def require_unique_ids(prompts: Iterable[Prompt], where: object) -> None:
    """Returns when no id stands twice.

    Raises:
        PromptError: naming those that do.
    """
    if twice := repeated(row.id for row in prompts):
        shown = first_of([redacted(name, LONGEST_ID) for name in twice])
        raise PromptError("an id must be unique", got=f"{shown} twice", where=where)


def repeated(values: Iterable[Value]) -> list[Value]:
    """The values that stand more than once, in order."""
    return [value for value, count in Counter(values).items() if count > 1]


def first_of(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return ", ".join(names[:NAMED]) + more


def redacted(value: object, longest: int = LONGEST) -> str:
    """A value as an error may show it: a short word as it is, anything else by kind and length.

    Rows of tier C pass through every loader, and a mistaken column can put their text anywhere.
    """
    text = repr(value)
    if len(text) <= longest and not any(mark.isspace() for mark in str(value)):
        return text
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    return f"a value of type {type(value).__name__}"
