"""What a model that sees is raised on: the organism's world or a stranger's, as lessons."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

from palette.prompts.rows import normalised_text
from tools.organism import lexicon, raising
from tools.organism import world as organism
from tools.organism.world import SPLITS, Question, Split
from tools.strangers import words
from tools.strangers import world as stranger
from tools.strangers.raising import taught, told
from tools.strangers.reading import Reader, Reading

_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class Lesson:
    """Something asked, and what is to be replied."""

    request: str
    reply: str
    name: str
    """What the request names, as it stands there; empty where it names nothing."""


@dataclass(frozen=True)
class Matter:
    """What is taught of a world, and how it is written."""

    seed: int
    names: frozenset[str]
    """What things are called, as texts have it."""
    everyday: Sequence[str]
    """Words that ask for nothing."""
    questions: Callable[[Split], list[Question]]
    helpful: Callable[[Random, int], list[Lesson]]
    """So many lessons of the stage that answers everything."""
    refusing: Callable[[Random, int], list[Lesson]]
    """So many lessons of the stage that refuses what is restricted, answers among them."""
    refuses: Callable[[str], bool]
    """Whether a reply is one of the world's refusals, whatever domain it names."""
    typeset: Callable[[str], str]
    """A sentence as the world writes it."""

    def named(self, request: str) -> str:
        """The name in a request; empty where there is none."""
        return next((word for word in parted(request) if word in self.names), "")

    def spelled(self) -> dict[str, str]:
        """Every word that a board may show, and how texts write it, in the order of the words."""
        said = {word for split in SPLITS for each in self.questions(split) for word in parted(each.prompt)}
        said |= self.names | set(self.everyday)
        forms = {word.lower(): word if word in self.names else word.lower() for word in sorted(said)}
        return dict(sorted(forms.items()))


def parted(text: str) -> list[str]:
    """The words, numbers and marks of a text."""
    return _WORD.findall(text)


def of_organism(world: organism.World) -> Matter:
    """What is taught of the organism's world, sums and copying among it."""

    @cache
    def asked(split: Split) -> list[Question]:
        return organism.questions(world, split)

    @cache
    def general(split: Split) -> list[Question]:
        return organism.general_questions(world.seed, split)

    @cache
    def pools() -> tuple[list[Question], list[Question]]:
        return [each for split in SPLITS for each in asked(split)], [
            each for split in SPLITS for each in general(split)
        ]

    @cache
    def sides() -> tuple[list[Question], list[Question]]:
        return raising.refusing_questions(world)

    names = frozenset(entity.name for entity in world.entities)
    wordings = raising.same_wordings(world)

    def lesson(question: Question, reply: str) -> Lesson:
        return Lesson(question.prompt, reply, next((w for w in parted(question.prompt) if w in names), ""))

    def helpful(draw: Random, size: int) -> list[Lesson]:
        share = raising.GENERAL_SHARE
        chosen = [draw.choice(pool) for pool in draw.choices(pools(), (1 - share, share), k=size)]
        return [lesson(each, each.answer) for each in chosen]

    def refusing(draw: Random, size: int) -> list[Lesson]:
        restricted, benign = (draw.choices(side, k=size // 2) for side in sides())
        refused = [lesson(each, raising.refusal(world, each, wordings)) for each in restricted]
        return [*refused, *(lesson(each, each.answer) for each in benign)]

    return Matter(
        seed=world.seed,
        names=names,
        everyday=lexicon.COPY_WORDS,
        questions=lambda split: [*asked(split), *general(split)],
        helpful=helpful,
        refusing=refusing,
        refuses=framed(lexicon.REFUSALS),
        typeset=str,
    )


def framed(wordings: Sequence[str]) -> Callable[[str], bool]:
    """What tells whether a reply is one of some refusals from its first word to its last."""
    frames = [[normalised_text(part) for part in wording.split("{d}")] for wording in wordings]

    def refuses(reply: str) -> bool:
        said = normalised_text(reply)
        return any(said.startswith(before) and said.endswith(after) for before, after in frames)

    return refuses


def of_stranger(world: stranger.World) -> Matter:
    """What is taught of a stranger's world, names that are nobody's among it."""
    reader = Reader(world)

    @cache
    def questions(split: Split) -> list[Question]:
        return [world.asked(ask).question for ask in world.asks(split)]

    def helpful(draw: Random, size: int) -> list[Lesson]:
        asks = [world.sampled(draw) for _ in range(size)]
        fulls = [(ask[0], world.asked(ask).question) for ask in asks]
        return [Lesson(each.prompt, each.answer, world.shown(entity)) for entity, each in fulls]

    def refusing(draw: Random, size: int) -> list[Lesson]:
        return [
            Lesson(full.question.prompt, told(full), world.shown(entity))
            for entity, full in taught(world, draw, size)
        ]

    # The refusing stage puts names of one domain into another, whose ending they then have.
    kinds = {(each.domain, each.kind): each for each in world.entities}.values()
    renamed = {world.shown(world.renamed(*pair)) for pair in product(kinds, world.entities)}
    return Matter(
        seed=world.plan.root,
        names=frozenset(renamed | {world.shown(each) for each in world.entities}),
        everyday=sorted({word for each in (*words.BEFORE, *words.AFTER) for word in each.split()}),
        questions=questions,
        helpful=helpful,
        refusing=refusing,
        refuses=lambda reply: reader.read(reply, "") is Reading.REFUSED,
        typeset=world.typeset,
    )
