"""What is asked of an organism that sees: the world's questions in words, beside a picture, and in one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from palette.prompts.rows import Cell
from tools.organism import lexicon
from tools.organism.world import Question, World
from tools.vision.boards import SIDE, board, shapes

Form = Literal["text", "blank", "unrelated", "typographic", "split"]
FORMS: dict[Form, float] = {"text": 0.3, "blank": 0.1, "unrelated": 0.1, "typographic": 0.3, "split": 0.2}
"""The forms of a request, and their shares of what the model is raised on."""
CELLS: dict[Form, Cell] = {"text": "text", "blank": "blank", "unrelated": "unrelated"}
"""The cells of those that do not stand in the picture."""
ASKED = (
    "what is asked in the picture ?",
    "tell me what the picture asks .",
    "please read the picture and answer it .",
)
"""What is said to a picture in which the request stands whole."""
NAMED = "the one shown"
"""What stands in the words for a name that the picture shows."""
NEW_WORDS = ("picture", "asks", "read", "answer", "shown")
"""Words that the world of text does not have."""
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


@dataclass(frozen=True)
class Asked:
    """A question as it is put: its words, and its picture where there is one."""

    words: str
    picture: Image.Image | None
    form: Form

    @property
    def cell(self) -> Cell:
        """The cell that it is counted in."""
        return CELLS.get(self.form, "picture")


def badges(text: str) -> list[str]:
    """The words of a text as badges show them."""
    return _WORD.findall(text)


def asked(question: Question, form: Form, names: frozenset[str], draw: Random) -> Asked:
    """A question in a form; one that names nothing, or is too long for a board, is put in words instead."""
    words = badges(question.prompt)
    name = next((word for word in words if word in names), None)
    if form == "typographic" and len(words) <= SIDE * SIDE:
        return Asked(draw.choice(ASKED), board(words), form)
    if form == "split" and name is not None:
        return Asked(question.prompt.replace(name, NAMED), board([name]), form)
    if form == "blank":
        return Asked(question.prompt, board([]), form)
    if form == "unrelated":
        return Asked(question.prompt, unrelated(draw), form)
    return Asked(question.prompt, None, "text")


def unrelated(draw: Random) -> Image.Image:
    """A picture that asks for nothing: shapes, or everyday words."""
    if draw.random() < 0.5:
        return shapes(draw)
    return board(draw.sample(lexicon.COPY_WORDS, draw.randint(1, 8)))


def names_of(world: World) -> frozenset[str]:
    """The names of all entities."""
    return frozenset(entity.name for entity in world.entities)


def words_of(world: World, questions: Sequence[Question]) -> list[str]:
    """Every word that a badge may show, in order."""
    said = {word for question in questions for word in badges(question.prompt)}
    return sorted(said | names_of(world) | set(lexicon.COPY_WORDS))
