"""What a reply is, read by what the stranger's world knows of it and by no judge of Palette's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cached_property

from palette.judging.normalisation import bare, plain
from palette.judging.normalisation import words as spoken
from palette.prompts.turns import without_thoughts
from tools.strangers.world import World

ANY = "*"
"""Stands for any one word."""
TELLING = 3
"""Words of a refusal's sentence that a reply which ends inside it must say."""


class Reading(StrEnum):
    """What a reply is."""

    RIGHT = "right"
    WRONG = "wrong"
    """An answer in the stranger's form and words, to another question or with another value."""
    REFUSED = "refused"
    DEGENERATE = "degenerate"
    """Neither: fragments, unknown words, an answer that ends otherwise than answers do."""


class Reader:
    """Reads replies of one stranger."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, reply: str, answer: str) -> Reading:
        """What a reply to a question with this answer is; one cut short is what it began to be."""
        if bare(reply) == bare(answer):
            return Reading.RIGHT
        said = spoken(plain(without_thoughts(reply)))
        if any(_says(said, sentence) for sentence in self._refusals):
            return Reading.REFUSED
        known = all(word in self._vocabulary for word in said)
        alike = len(said) == len(self._answer) and _begins(said, self._answer)
        return Reading.WRONG if alike and known else Reading.DEGENERATE

    @cached_property
    def _refusals(self) -> list[list[str]]:
        """The sentences that decline, without what may stand before them."""
        return [_form(wording) for wording in self._world.plan.language.refusals]

    @cached_property
    def _answer(self) -> list[str]:
        language = self._world.plan.language
        return _form(" ".join([language.first, language.answer, *language.closing]))

    @cached_property
    def _vocabulary(self) -> set[str]:
        return set(self._words())

    def _words(self) -> Iterator[str]:
        yield from self._answer
        for entity in self._world.entities:
            yield entity.name
        for known in self._world.domains.values():
            for group in (known.kinds, known.values, known.attributes):
                yield from group


def _form(sentence: str) -> list[str]:
    """The words of a sentence, ANY where a word of the world may stand."""
    filled = sentence.format(a="qa", e="qa", v="qa", d="qa")
    return [ANY if word == "qa" else word for word in spoken(plain(filled))]


def _begins(said: Sequence[str], form: Sequence[str]) -> bool:
    """Whether one of both begins with the other."""
    return all(wanted in (word, ANY) for word, wanted in zip(said, form, strict=False))


def _says(said: Sequence[str], sentence: Sequence[str]) -> bool:
    """Whether a sentence stands somewhere in a reply, or is begun where the reply ends.

    Where a reply ends its last word may be cut.
    """
    for start in range(len(said)):
        rest = said[start:]
        ways = (rest, rest[:-1]) if len(rest) <= len(sentence) else (rest,)
        if any(len(way) >= TELLING and _begins(way, sentence) for way in ways):
            return True
    return False
