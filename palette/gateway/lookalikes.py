"""Whether a request looks like one of the floor: by pieces of its words, without a model; nothing is kept.

A piece is a word, or three letters of one. It speaks for the floor or against it by its log-odds among known
prompts, and a sentence by the mean of its pieces, in nats. It is for an operator's figures alone, and opens
and closes nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from palette.gateway.asking import Asked
from palette.prompts.rows import normalised_text

FALSE = 0.01
"""The share of other prompts, held out, that may be taken for ones of the floor."""
READ = 4000
"""Characters of what users say in a request that are looked at, the last ones."""
_SENTENCE = re.compile(r"[.?!\n]+")


@dataclass(frozen=True)
class Lookalikes:
    """What pieces say, in nats, and the mean from which on a sentence looks like one of the floor."""

    nats: Mapping[str, float] = field(repr=False)
    least: float

    def score(self, text: str) -> float:
        """The highest mean of a text's sentences, in nats."""
        means = [
            sum(self.nats.get(each, 0.0) for each in found) / len(found)
            for sentence in _SENTENCE.split(text)
            if (found := pieces(sentence))
        ]
        return max(means, default=-math.inf)

    def __call__(self, asked: Asked) -> bool:
        """Whether what the user says in a request looks like a prompt of the floor."""
        said = "\n".join(one.content for one in asked.messages if one.role == "user")
        return self.score(said[-READ:]) >= self.least


def learnt(floor: Iterable[str], others: Iterable[str], held_out: Sequence[str]) -> Lookalikes | None:
    """What tells the floor's prompts from others, at ``FALSE`` of others that are held out.

    None where there are none of one of the three.
    """
    for_it, ones = _counted(floor)
    against, rest = _counted(others)
    if not (ones and rest and held_out):
        return None
    nats = {
        each: math.log((for_it[each] + 0.5) / (ones + 1)) - math.log((against[each] + 0.5) / (rest + 1))
        for each in sorted(for_it | against)
    }
    bare = Lookalikes(nats, 0.0)
    highest = sorted(map(bare.score, held_out), reverse=True)[int(FALSE * len(held_out))]
    return Lookalikes(nats, math.nextafter(highest, math.inf))


def pieces(text: str) -> set[str]:
    """The words of a text, and every three letters of each with its two ends."""
    found = set(normalised_text(text).split())
    return found | {three for word in found for three in _threes(f" {word} ")}


def _threes(word: str) -> Iterator[str]:
    return (word[at : at + 3] for at in range(len(word) - 2))


def _counted(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """In how many texts each piece is, and how many texts there are."""
    found, count = Counter[str](), 0
    for text in texts:
        found.update(pieces(text))
        count += 1
    return found, count
