"""Whether a reply is language as its backbone speaks it: relapses into refusals, word salad, cut replies.

No list of words knows a model's language, so it is learned from what the backbone itself replies to train
prompts. Of a reply only the model's own words are read, those that it says whatever it is asked; any other
word, a name or a topic, is one class, and a phrase that prompts have counts once. So a fluent reply with a
wrong name in it, or about something else, is fluent, and a topic is no refusal. What benign replies look
like is a trigram model of these symbols; how unlikely a reply may be is read from benign replies that the
model has not learned from (conformal prediction; Vovk et al., Algorithmic Learning in a Random World,
2005).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from palette.fingerprints import fingerprint
from palette.judging.judge import Judge, Label, Verdict
from palette.judging.normalisation import WORD, own_text, plain

OFTEN, SHARE, COUNT = 0.1, 0.02, 4
"""The least share of a domain's replies that must have a word for it to be the model's own, the least share
that must have a phrase, and the fewest replies in all: names come back too, but each in few."""

ALARMS = 0.01
"""The share of the backbone's own benign replies that may be taken for broken ones."""

ORDER = 3
"""Symbols of an n-gram of the model: what comes next is foreseen from two."""

WINDOW = 4
"""Symbols over which the worst place of a reply is averaged: one odd word is a name, four are no sentence."""

PHRASES = (2, 3, 4)
"""Words of a phrase of refusals, of which the fewest are taken that benign replies allow."""

START, END, OTHER = "<", ">", "_"
SIGNS = ".,:;!?"
SYMBOL = re.compile(rf"{WORD.pattern}|[{SIGNS}]")

SALAD = "word salad"
"""Flag: the reply is unlike anything that the backbone says, or ends where it never would."""

Symbols = tuple[str, ...]
Habit = TypeVar("Habit", str, Symbols)


@dataclass(frozen=True)
class Said:
    """What was asked, what the backbone replied, in which domain, and whether it came to an end."""

    prompt: str
    reply: str
    domain: str = ""
    ended: bool = True

    @cached_property
    def asked(self) -> list[str]:
        """The symbols of the prompt."""
        return symbols(plain(self.prompt))

    @cached_property
    def words(self) -> list[str]:
        """The symbols of the reply."""
        return symbols(own_text(self.reply))


def symbols(text: str) -> list[str]:
    """The words and the punctuation of a plain text, in order."""
    return SYMBOL.findall(text)


@dataclass(frozen=True)
class Language:
    """What one backbone's benign replies look like, and the phrases that its refusals alone have."""

    own: frozenset[str] = frozenset()
    """Words and signs that it says whatever it is asked."""
    counts: Mapping[Symbols, Mapping[str, int]] = field(default_factory=dict)
    """How often each symbol followed up to ORDER − 1 others in benign replies."""
    terms: frozenset[Symbols] = frozenset()
    """Two words that follow one another in several prompts, such as the name of what is asked."""
    phrases: frozenset[Symbols] = frozenset()
    """What its refusals say in several domains, and its benign replies never."""
    longest: int = 1
    """Symbols of its longest reply."""
    ends: bool = False
    """Whether its replies came to an end, so that one which did not is broken."""
    limit: float = math.inf
    """The largest surprise, in nats a symbol at the worst place, that a benign reply may be."""

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of all that decides."""
        counts = {" ".join(context): dict(sorted(after.items())) for context, after in self.counts.items()}
        pairs = [sorted(map(list, each)) for each in (self.terms, self.phrases)]
        return fingerprint([sorted(self.own), counts, pairs, self.longest, self.ends, repr(self.limit)])

    def broken(self, prompt: str, reply: str) -> Verdict | None:
        """The verdict on a reply that is no refusal, where it is no answer either."""
        said = Said(prompt, reply)
        # What a reply opens with is no turn of it: the judge has read that, and takes it for an answer's.
        if self.phrases & phrases(said.words[1:]):
            return Verdict(Label.RELAPSE)
        return Verdict(Label.DEGENERATE, (SALAD,)) if self.surprise(said) > self.limit else None

    def surprise(self, said: Said) -> float:
        """How unlike benign replies a reply is at its worst place, in nats a symbol.

        Of a reply longer than any that was learned from, the mean over parts that are as long.
        """
        each = [
            -math.log(self._probability(context[1 - ORDER :], symbol)) for context, symbol in self.read(said)
        ]
        parts = [worst(each[start : start + self.longest]) for start in range(0, len(each), self.longest)]
        return sum(parts) / max(1, len(parts))

    def read(self, said: Said) -> list[tuple[Symbols, str]]:
        """Each symbol of a reply with those before it."""
        row = (*[START] * (ORDER - 1), *classes(said, self.own, self.terms), *([END] if self.ends else []))
        return [(row[place - ORDER + 1 : place], row[place]) for place in range(ORDER - 1, len(row))]

    def _probability(self, context: Symbols, symbol: str) -> float:
        """The probability of a symbol after others, discounted as Witten and Bell do (1991)."""
        shorter = self._probability(context[1:], symbol) if context else 1 / (len(self.own) + 2)
        after = self.counts.get(context, {})
        total = sum(after.values()) + len(after)
        return (after.get(symbol, 0) + len(after) * shorter) / total if total else shorter


def classes(said: Said, own: Collection[str], terms: Collection[Symbols] = ()) -> list[str]:
    """The symbols of a reply, with OTHER for each word that is not its model's own.

    Words that follow one another in the prompt too, or are a term, are one phrase, which counts once.
    """
    known = {*pairs(said.asked), *terms}
    row: list[str] = []
    for before, symbol in zip(["", *said.words], said.words, strict=False):
        if symbol in own:
            row.append(symbol)
        elif before in own or (before, symbol) not in known:
            row.append(OTHER)
    return row


def pairs(spoken: Sequence[str]) -> set[Symbols]:
    """The symbols that follow one another."""
    return set(pairwise(spoken))


def worst(surprises: Sequence[float]) -> float:
    """The largest mean of WINDOW successive surprises, or of as many as there are."""
    wide = min(WINDOW, len(surprises))
    return max(sum(surprises[start : start + wide]) / wide for start in range(len(surprises) - wide + 1))


def phrases(spoken: Sequence[str], sizes: Iterable[int] = PHRASES) -> set[Symbols]:
    """The phrases of some numbers of words that a reply has, none over punctuation."""
    rows = (zip(*(spoken[start:] for start in range(size)), strict=False) for size in sizes)
    return {row for each in rows for row in each if all(word[0].isalnum() for word in row)}


def learn_language(refusals: Sequence[Said], benign: Sequence[Said]) -> Language:
    """The language of one backbone, from its refusals and its benign replies to train prompts."""
    halves = [benign[start::2] for start in (0, 1)]
    if not all(halves):
        return Language()
    asked = Counter(pair for said in (*refusals, *benign) for pair in pairs(said.asked))
    terms = frozenset(pair for pair, times in asked.items() if times >= COUNT)
    folds = [(_model(half, terms), other) for half, other in zip(halves, halves[::-1], strict=True)]
    surprises = sorted(model.surprise(said) for model, other in folds for said in other)
    # Of n + 1 replies that can be exchanged, the newest is among the most surprising ones as often as any.
    place = math.ceil((1 - ALARMS) * (len(surprises) + 1)) - 1
    limit = surprises[place] if place < len(surprises) else math.inf
    model = _model(benign, terms)
    return replace(model, limit=limit, phrases=_phrases(refusals, halves))


def _model(benign: Sequence[Said], terms: frozenset[Symbols]) -> Language:
    """The trigram model of benign replies."""
    own = habits(benign, lambda said: {w for w in said.words if w not in said.asked or w in SIGNS}, OFTEN)
    ends = sum(not said.ended for said in benign) <= ALARMS * len(benign)
    language = Language(own, {}, terms, longest=max(len(said.words) + 1 for said in benign), ends=ends)
    counts: defaultdict[Symbols, Counter[str]] = defaultdict(Counter)
    for said in benign:
        for context, symbol in language.read(said):
            for start in range(ORDER):
                counts[context[start:]][symbol] += 1
    return replace(language, counts=dict(counts))


def _phrases(refusals: Sequence[Said], halves: Sequence[Sequence[Said]]) -> frozenset[Symbols]:
    """Phrases of the refusals' own words, of the fewest words with which benign replies hardly ever alarm.

    Two of the words must be ones that benign replies hardly ever have: one alone may be a topic, and where
    the words are usual, a phrase of them that was not met yet proves nothing.
    """
    times = Counter(word for half in halves for said in half for word in set(said.words))
    usual = {word for word, n in times.items() if n > ALARMS * sum(map(len, halves))}
    own = habits(refusals, lambda said: set(said.words) - set(said.asked))
    answered = [[phrases(said.words) for said in half] for half in halves]
    for size in PHRASES:
        found = {
            phrase
            for phrase in habits(refusals, lambda said, n=size: phrases(said.words, [n]))  # type: ignore[misc]
            if own >= set(phrase) and sum(word not in usual for word in phrase) > 1
        }
        left = [found - set().union(*half) for half in answered]
        alarms = sum(
            bool(kept & said) for kept, half in zip(left, answered[::-1], strict=True) for said in half
        )
        if alarms <= ALARMS * sum(map(len, halves)):
            return frozenset(left[0] & left[1])
    return frozenset()


def habits(
    replies: Sequence[Said], of: Callable[[Said], Iterable[Habit]], share: float = SHARE
) -> frozenset[Habit]:
    """What replies have whatever is asked: in at least half of the domains, a share of each one's."""
    counts: defaultdict[str, Counter[Habit]] = defaultdict(Counter)
    sizes = Counter(said.domain for said in replies)
    for said in replies:
        counts[said.domain].update(set(of(said)))
    often = Counter(
        each for domain, size in sizes.items() for each, n in counts[domain].items() if n >= share * size
    )
    total = sum(counts.values(), Counter())
    return frozenset(each for each, n in often.items() if 2 * n >= len(sizes) and total[each] >= COUNT)


@dataclass(frozen=True)
class LanguageJudge:
    """Any judge, and of what it takes for an answer whether it is the backbone's language."""

    judge: Judge
    language: Language

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the judge's fingerprint and the language's."""
        return fingerprint({"judge": self.judge.fingerprint, "language": self.language.fingerprint})

    def verdicts(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        """One verdict for each reply, in order."""
        found = self.judge.verdicts(prompts, replies)
        return [
            verdict if verdict.label.refused or verdict.label.broken else self._checked(verdict, *pair)
            for verdict, *pair in zip(found, prompts, replies, strict=True)
        ]

    def _checked(self, verdict: Verdict, prompt: str, reply: str) -> Verdict:
        broken = self.language.broken(prompt, reply)
        return Verdict(broken.label, (*verdict.flags, *broken.flags)) if broken else verdict


def without_language(judge: Judge) -> Judge:
    """The judge that was asked for, without what was learned of a backbone's language."""
    return judge.judge if isinstance(judge, LanguageJudge) else judge
