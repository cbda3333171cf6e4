"""Pictures of the world: boards of badges, a word on each, in a type of three by five pixels.

A picture is a board of 6 × 6 badges of 24 × 24 pixels. A word is broken at the badge's edge, as on a name
tag; a board reads from left to right and down. Shapes and empty boards are pictures that ask for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

import numpy as np
from PIL import Image

SIDE, BADGE = 6, 24
"""Badges of a board's side, and pixels of a badge's."""
WIDE, HIGH = 4, 6
"""Pixels of a letter with the space behind and below it."""
_ROWS = {
    "a": "010 101 111 101 101", "b": "110 101 110 101 110", "c": "011 100 100 100 011",
    "d": "110 101 101 101 110", "e": "111 100 110 100 111", "f": "111 100 110 100 100",
    "g": "011 100 101 101 011", "h": "101 101 111 101 101", "i": "111 010 010 010 111",
    "j": "001 001 001 101 010", "k": "101 110 100 110 101", "l": "100 100 100 100 111",
    "m": "101 111 111 101 101", "n": "110 101 101 101 101", "o": "010 101 101 101 010",
    "p": "110 101 110 100 100", "q": "010 101 101 110 011", "r": "110 101 110 110 101",
    "s": "011 100 010 001 110", "t": "111 010 010 010 010", "u": "101 101 101 101 111",
    "v": "101 101 101 101 010", "w": "101 101 111 111 101", "x": "101 101 010 101 101",
    "y": "101 101 010 010 010", "z": "111 001 010 100 111", "0": "111 101 101 101 111",
    "1": "010 110 010 010 111", "2": "110 001 010 100 111", "3": "110 001 010 001 110",
    "4": "101 101 111 001 001", "5": "111 100 110 001 110", "6": "011 100 111 101 111",
    "7": "111 001 010 010 010", "8": "111 101 010 101 111", "9": "111 101 111 001 110",
    ".": "000 000 000 000 010", ",": "000 000 000 010 100", "?": "110 001 010 000 010",
    ":": "000 010 000 010 000", "'": "010 010 000 000 000",
}  # fmt: skip
"""The letters, a row of pixels each word."""


@cache
def badge(word: str) -> np.ndarray:
    """A word on a badge: 24 × 24 pixels, ink 1 on 0, broken at the edge."""
    ink = np.zeros((BADGE, BADGE), dtype=np.uint8)
    line = BADGE // WIDE
    for place, letter in enumerate(word):
        row, column = divmod(place, line)
        shape = [[int(dot) for dot in dots] for dots in _ROWS[letter].split()]
        ink[row * HIGH + 1 : row * HIGH + 6, column * WIDE : column * WIDE + 3] = shape
    return ink


def board(words: Sequence[str]) -> Image.Image:
    """A board with these words, black on white.

    Raises:
        ValueError: if there are more than badges.
    """
    if len(words) > SIDE * SIDE:
        raise ValueError(f"a board has {SIDE * SIDE} badges, got {len(words)} words")
    ink = np.zeros((SIDE * BADGE, SIDE * BADGE), dtype=np.uint8)
    for place, word in enumerate(words):
        row, column = divmod(place, SIDE)
        ink[row * BADGE : (row + 1) * BADGE, column * BADGE : (column + 1) * BADGE] = badge(word)
    return Image.fromarray(((1 - ink) * 255).astype(np.uint8), "L")


def shapes(draw: Random) -> Image.Image:
    """A board on which some badges are bars, frames or dots."""
    ink = np.zeros((SIDE, SIDE, BADGE, BADGE), dtype=np.uint8)
    for _ in range(draw.randint(2, 6)):
        one = ink[draw.randrange(SIDE), draw.randrange(SIDE)]
        low, high = draw.randint(2, 8), draw.randint(14, 22)
        form = draw.randrange(3)
        one[low:high, low:high] = 1
        if form == 1:
            one[low + 2 : high - 2, low + 2 : high - 2] = 0
        elif form == 2:
            one[low + 3 : high - 3] = 0
    whole = ink.transpose(0, 2, 1, 3).reshape(SIDE * BADGE, SIDE * BADGE)
    return Image.fromarray(((1 - whole) * 255).astype(np.uint8), "L")
