"""A prompt with its labels, and a set of them that can be selected from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from palette.errors import PromptError
from palette.fingerprints import canonical, fingerprint

Split = Literal["train", "validation", "test"]
Kind = Literal["restricted", "benign"]
Message = dict[str, str]

TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.15
"""How rows without a ``split`` are divided by a hash of their prompt; the rest is the test split."""


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
    tier: Literal["A", "B", "C"] | None = None
    hazard: str | None = None
    image: str | None = None

    @property
    def asked(self) -> str:
        """What the prompt asks: its last user message, which a judge may read beside the reply."""
        said = [m["content"] for m in messages(self) if m["role"] == "user" and isinstance(m["content"], str)]
        return said[-1] if said else ""


def messages(prompt: Prompt) -> list[Message]:
    """The prompt as chat messages; a plain text is one user message."""
    if isinstance(prompt.prompt, str):
        return [{"role": "user", "content": prompt.prompt}]
    return [dict(message) for message in prompt.prompt]


def normalised(prompt: Prompt) -> str:
    """A hash of the prompt that ignores case and spacing, by which duplicates are found."""
    text = canonical([[m["role"], " ".join(m["content"].casefold().split())] for m in messages(prompt)])
    return hashlib.sha256(text.encode()).hexdigest()


def split_by_hash(digest: str) -> Split:
    """The split of a row that names none, from a hash of its prompt."""
    share = int(digest[:8], 16) / 0x100000000
    if share < TRAIN_SHARE:
        return "train"
    return "validation" if share < TRAIN_SHARE + VALIDATION_SHARE else "test"


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
    def asked(self) -> list[str]:
        """What each prompt asks, in order."""
        return [row.asked for row in self.rows]

    @property
    def fingerprint(self) -> str:
        """The identity of the rows, without their reference answers."""
        return fingerprint([list(vars(replace(row, answer=None)).values()) for row in self.rows])

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
            count = min(most, len(indices))
            kept.update(indices[i * len(indices) // count] for i in range(count))
        return PromptSet(tuple(self.rows[i] for i in sorted(kept)))

    def without_answers(self) -> PromptSet:
        """The same prompts with their reference answers taken off."""
        return PromptSet(tuple(replace(row, answer=None) for row in self.rows))

    def in_words(self) -> PromptSet:
        """This set, if all of it can be asked in words alone.

        Raises:
            PromptError: if a prompt is asked with an image, without which it would be another one.
        """
        seen = [row.id for row in self.rows if row.image]
        if seen:
            raise PromptError(
                "a prompt must be asked in words, since images are not shown to a model yet",
                got=f"{len(seen)} with an image, the first {seen[0]!r}",
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
                "every role needs at least one prompt",
                got=f"no {name} prompt",
                remedy="add rows for it",
            )
        return self
