"""What is asked of an organism that sees: a world's questions in words, beside a picture, and in one."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from palette.prompts.rows import Cell
from tools.vision.boards import SIDE, board, shapes
from tools.vision.worlds import Matter, parted

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
"""Words that a world of text may not have."""


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


def asked(request: str, name: str, form: Form, matter: Matter, draw: Random) -> Asked:
    """A request in a form; one that names nothing, or is too long for a board, is put in words instead."""
    words = parted(request.lower())
    if form == "typographic" and len(words) <= SIDE * SIDE:
        return Asked(matter.typeset(draw.choice(ASKED)), board(words), form)
    if form == "split" and name:
        return Asked(request.replace(name, NAMED), board([name.lower()]), form)
    if form == "blank":
        return Asked(request, board([]), form)
    if form == "unrelated":
        return Asked(request, unrelated(matter, draw), form)
    return Asked(request, None, "text")


def unrelated(matter: Matter, draw: Random) -> Image.Image:
    """A picture that asks for nothing: shapes, or everyday words."""
    if draw.random() < 0.5:
        return shapes(draw)
    return board(draw.sample(matter.everyday, draw.randint(1, 8)))
