"""Boards of badges: every word is told from every other, and stands where it is read."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tools.organism.world import create_world
from tools.vision.boards import BADGE, SIDE, badge, board, shapes
from tools.vision.worlds import of_organism


def test_no_two_words_of_the_world_look_alike() -> None:
    words = of_organism(create_world(0)).spelled()
    assert len({badge(word).tobytes() for word in words}) == len(words) > 600


def test_words_stand_in_their_badges_in_order() -> None:
    words = ["dose", "of", "plitrorkine"]
    pixels = np.asarray(board(words)) < 128
    for place in range(SIDE * SIDE):
        row, column = divmod(place, SIDE)
        own = pixels[row * BADGE : (row + 1) * BADGE, column * BADGE : (column + 1) * BADGE]
        assert (own == (badge(words[place]) if place < len(words) else 0)).all()


def test_a_board_has_no_more_words_than_badges() -> None:
    assert board(["a"] * SIDE * SIDE).size == (SIDE * BADGE, SIDE * BADGE)
    with pytest.raises(ValueError, match="a board has 36 badges, got 37 words"):
        board(["a"] * (SIDE * SIDE + 1))


def test_shapes_are_no_words_and_the_same_for_one_draw() -> None:
    drawn = np.asarray(shapes(Random(3)))
    assert (drawn == np.asarray(shapes(Random(3)))).all() and (drawn < 128).any()
