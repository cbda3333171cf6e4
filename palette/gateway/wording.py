"""From tokens to text as it comes: no half letters, and nothing of what a stop text may begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALF = "�"
"""What a tokenizer shows where a letter's bytes are not all there."""


class Wording:
    """The text of one reply, given out as far as it is certain."""

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._given = ""

    def new(self, tokens: Sequence[int], *, ended: bool) -> tuple[str, bool]:
        """What is new and certain once the reply has these tokens, and whether a stop text has ended it."""
        text = self._decode(list(tokens))
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            return self._give(text[: min(ends)]), True
        if not ended:
            text = text.rstrip(HALF)
            text = text[: len(text) - self._held(text)]
        return self._give(text), False

    def _held(self, text: str) -> int:
        """How many of the last characters may be a stop text's first ones."""
        return max(
            (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )

    def _give(self, text: str) -> str:
        # Decoded longer, a text may lose what stood at its end; what was given out stays.
        if not text.startswith(self._given):
            return ""
        new, self._given = text[len(self._given) :], text
        return new
