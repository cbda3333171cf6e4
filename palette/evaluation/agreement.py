"""How far two replies to one request agree in meaning, by a program and without a model.

Where the request offers options and both replies choose one, it is 1 for the same option and 0 for another;
where it wants a number and both conclude with one, 1 for the same number and 0 for another; for open text it
is the F1 of the content words that they share, as of SQuAD's answers (arXiv 1606.05250). Words are no
meanings: two right answers in other words share few, and one that denies the other shares many. What the
measure can tell is in benchmarks/results/agreement.json.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from palette.evaluation.conclusions import chosen, number, options, wants_number
from palette.judging.normalisation import expanded, plain, words
from palette.prompts.turns import without_thoughts

STOP_WORDS = frozenset(
    (  # noqa: SIM905 - a list of strings says the same in many lines
        "a an the this that these those it its he she they them their his her we us our i me my you your "
        "is are was were be been being am do does did have has had having will would can could shall should "
        "may might must of to in on at by for from with as into about than then so and or but if when which "
        "who whom whose what there here also such some any all each more most other very just"
    ).split()
)
"""Words that replies share whatever they say. Words that deny are none of them."""

PLURALS = (("ies", "y"), ("sses", "ss"), ("s", ""), ("", ""))
"""Endings of plurals, and what stands in their place."""
SHORTEST = 3
"""Letters of a stem at least, and before "ed" one more: "bleed" is no past tense."""
VOWEL = re.compile("[aeiouy]")
DOUBLED = re.compile(r"([bdgmnprt])\1$")
"""A consonant that is doubled before an ending: "stopped"."""


class Way(StrEnum):
    """How the agreement of two replies was measured."""

    OPTION = "option"
    """By the options that they choose."""
    NUMBER = "number"
    """By the numbers that they conclude with."""
    WORDS = "words"
    """By the content words that they share."""


@dataclass(frozen=True)
class Reply:
    """The text of a reply, and whether it ended because it had to."""

    text: str
    cut: bool = False


@dataclass(frozen=True)
class Agreement:
    """How far two replies agree, in [0, 1], and how that was measured."""

    value: float
    way: Way


def agreement(request: str, first: Reply, second: Reply) -> Agreement:
    """The agreement in meaning of two replies to a request, in either order; 1 of a reply with itself."""
    if offered := options(request):
        choices = [chosen(reply.text, offered) for reply in (first, second)]
        if None not in choices:
            return Agreement(float(choices[0] == choices[1]), Way.OPTION)
    if wants_number(request):
        one, other = (number(reply.text) for reply in (first, second))
        if one and other:
            return Agreement(float(one.equals(other)), Way.NUMBER)
    return Agreement(shared_words(first, second), Way.WORDS)


def shared_words(first: Reply, second: Reply) -> float:
    """The F1 in [0, 1] of the content words of two replies, each as often as both have it.

    Where the shorter one was cut, the other is read as far as that: what it would have said is not known.
    One that ended by itself has said all that it says.
    """
    bags = [content_words(reply.text) for reply in (first, second)]
    if not all(bags):
        # Of function words alone, such as "It is.", or of nothing.
        bags = [_spoken(reply.text) for reply in (first, second)]
    (shorter, cut), (longer, _) = sorted(
        ((bag, reply.cut) for bag, reply in zip(bags, (first, second), strict=True)), key=_size
    )
    if cut:
        longer = longer[: len(shorter)]
    total = len(shorter) + len(longer)
    common = (Counter(shorter) & Counter(longer)).total()
    return 2 * common / total if total else float(first.text == second.text)


def _size(read: tuple[Sequence[str], bool]) -> tuple[int, bool]:
    """Orders replies by length; of two as long the cut one is the shorter."""
    return len(read[0]), not read[1]


def covered(fact: str, text: str) -> float:
    """The share in [0, 1] of a fact's content words that a text has; 1 of a fact without any."""
    wanted, given = set(content_words(fact)), set(content_words(text))
    return len(wanted & given) / len(wanted) if wanted else 1.0


def content_words(text: str) -> list[str]:
    """The stems of a text's words that tell something, in order, whatever their case and typography."""
    return [stem(word) for word in _spoken(text) if word not in STOP_WORDS]


def _spoken(text: str) -> list[str]:
    said = words(expanded(plain(without_thoughts(text))))
    return [part.removesuffix("'s") for word in said for part in word.split("-")]


def stem(word: str) -> str:
    """A word without its ending of number or tense, by a few rules: "causes" and "causing" are one."""
    if not word.isalpha():
        return word
    if not word.endswith(("ss", "us", "is")):
        ending, instead = next(each for each in PLURALS if word.endswith(each[0]))
        word = _shortened(word, ending, instead)
    for ending, least in (("ing", SHORTEST), ("ed", SHORTEST + 1)):
        shorter = _shortened(word, ending, "", least)
        if shorter != word:
            return shorter[:-1] if DOUBLED.search(shorter) else shorter
    return _shortened(word, "e", "")


def _shortened(word: str, ending: str, instead: str, least: int = SHORTEST) -> str:
    if not word.endswith(ending):
        return word
    rest = word.removesuffix(ending) + instead
    return rest if len(rest) >= least and VOWEL.search(rest) else word
