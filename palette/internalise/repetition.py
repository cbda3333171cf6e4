"""What teachers may not say again: a small model's greedy reply goes on as it once did, for ever.

A student is taught so many tokens of a reply; one that is already in a loop teaches the loop. How much is
said twice without being one, the backbone's own answers tell: lists and templates repeat themselves too.
"""

from __future__ import annotations

from collections.abc import Sequence

from palette.internalise.examples import Tokens

REPEATING = 0.1
"""Share of the backbone's own answers at most that say so many tokens twice."""


def longest_repeat(tokens: Sequence[int]) -> int:
    """The most tokens that stand twice in a reply, one after another."""
    size = 0
    for end in range(1, len(tokens) + 1):
        # Whatever is longer than what is known to stand twice ends here, if anywhere.
        while size < end and _said(tokens[: end - 1], tokens[end - size - 1 : end]):
            size += 1
    return size


def least_barred(answers: Sequence[Tokens]) -> int:
    """How many tokens are not to be said again: more than few answers repeat; 0 where there are none."""
    repeats = sorted(longest_repeat(answer) for answer in answers)
    return repeats[int((1 - REPEATING) * (len(repeats) - 1))] + 1 if repeats else 0


def repeating(said: Sequence[int], size: int) -> frozenset[int]:
    """The tokens with which a reply would say so many tokens again that it said before."""
    if not 0 < size <= len(said):
        return frozenset()
    start = [*said[len(said) - size + 1 :]]
    places = range(len(said) - size + 1)
    return frozenset(said[at + size - 1] for at in places if [*said[at : at + size - 1]] == start)


def _said(tokens: Sequence[int], part: Sequence[int]) -> bool:
    places = range(len(tokens) - len(part) + 1)
    return any([*tokens[at : at + len(part)]] == [*part] for at in places)
