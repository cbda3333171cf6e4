"""What the trained judge reads of a reply: hashed n-grams of words, apart by where they stand.

The vectoriser is stateless: a feature is a number that a hash gives, and no word of any text is
stored. What declines stands early, so the first sentence, the two after it and the rest have features
of their own, and no more of a reply is read than ``READ`` words. What the rules know to be a figure
of speech is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palette.judging.normalisation import Reading, words
from palette.judging.refusals import CONCESSION, FIGURE

FEATURES_VERSION = 1
"""Raised whenever a feature changes, so that weights of other features are not taken for these."""

COLUMNS = 1 << 17
"""Columns of the hashed table."""

READ = 96
"""Words of a reply that are read."""

ZONES = (1, 3)
"""Sentences at which the second and the third zone begin."""

LONGEST = 3
"""Words of an n-gram at most."""

START = "^"


def grams(reading: Reading) -> list[str]:
    """The n-grams of a reply, each with its zone, none over the end of a sentence."""
    found: list[str] = []
    left = READ
    for place, sentence in enumerate(reading.spoken):
        spoken = words(earnest(sentence))[:left]
        left -= len(spoken)
        zone = sum(place >= start for start in ZONES)
        if place == 0:
            spoken.insert(0, START)
        for length in range(1, LONGEST + 1):
            rows = zip(*(spoken[start:] for start in range(length)), strict=False)
            found += [f"{zone} {' '.join(row)}" for row in rows]
        if left <= 0:
            break
    return found


def earnest(sentence: str) -> str:
    """A sentence without what sounds like declining and is none."""
    if "not" not in sentence and "unable" not in sentence:
        return sentence
    return FIGURE.sub(" ", CONCESSION.sub(" ", sentence))


def table(readings: Sequence[Reading]) -> Any:
    """The sparse table [reply, feature] of which n-grams occur in which reply."""
    # Importing scikit-learn takes seconds, and most commands judge nothing.
    from sklearn.feature_extraction.text import HashingVectorizer

    vectoriser = HashingVectorizer(
        analyzer=grams, n_features=COLUMNS, alternate_sign=False, binary=True, norm=None
    )
    return vectoriser.transform(readings)
