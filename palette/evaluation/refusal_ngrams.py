"""Tokens by which a reply turns into a refusal, learned from how one backbone refuses and answers.

A refusal is more than its opening: a backbone that was made to begin with an answer may relapse in
mid-sentence, and where answers and refusals share their first words only later ones tell. So what is
learned are n-grams of tokens that refusals have and answers never do, at any place of a reply. They
steer decoding away from a refusal, and their probability along a reply is its refusal score.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from palette.shapes import Float, Tensor

Tokens = tuple[int, ...]

START = -1
"""Stands for what is before a reply's first token."""
ORDERS = (1, 2, 3)
"""Lengths of n-grams. Single tokens tell most, where they are words; of pieces they are letters."""
SUPPORT = 3
"""Prompts at least to which refusals say an n-gram of which no token is the prompt's own: what a prompt
says itself is its topic, which an answer may repeat as well."""
FALSE_ALARMS = 0.01
"""Share of unseen answers at most that may have an n-gram of a length, if that length is to tell."""
LIMIT = 30.0
"""Log-odds are clamped to ± this many nats, where float32 probabilities end."""


@dataclass(frozen=True)
class RefusalNgrams:
    """For each context, of several lengths, the tokens with which a reply turns into a refusal."""

    following: Mapping[Tokens, frozenset[int]] = field(default_factory=dict)

    def after(self, reply: Sequence[int]) -> frozenset[int]:
        """The tokens with which a reply so far would turn into a refusal."""
        ending = ((START,) * max(ORDERS) + tuple(reply[-max(ORDERS) :]))[-max(ORDERS) :]
        contexts = (ending[len(ending) - order + 1 :] for order in ORDERS)
        return frozenset().union(*(self.following.get(context, frozenset()) for context in contexts))

    def place(self, reply: Sequence[int]) -> int | None:
        """The place of the first token at which a reply turns into a refusal; None where it never does."""
        return next((i for i, token in enumerate(reply) if token in self.after(reply[:i])), None)

    def marks(self, reply: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The places of a reply and the tokens there by which it would turn into a refusal, in pairs."""
        pairs = [(i, token) for i in range(len(reply)) for token in sorted(self.after(reply[:i]))]
        places, tokens = zip(*pairs, strict=True) if pairs else ((), ())
        return torch.tensor(places, dtype=torch.long), torch.tensor(tokens, dtype=torch.long)

    def to_json(self) -> list[list[list[int]]]:
        """Each context with its tokens, as plain values."""
        return [[list(context), sorted(tokens)] for context, tokens in sorted(self.following.items())]

    @classmethod
    def from_json(cls, values: Sequence[Sequence[Sequence[int]]]) -> RefusalNgrams:
        """What ``to_json`` gave."""
        return cls({tuple(context): frozenset(tokens) for context, tokens in values})


Refusals = Sequence[tuple[Sequence[int], Sequence[Tokens]]]
"""Prompts, each with its refusals."""


def learn_refusal_ngrams(
    refusals: Refusals, answers: Sequence[Tokens], stops: Sequence[int] = ()
) -> RefusalNgrams:
    """The n-grams of ``refusals`` that ``answers`` never have, of each length that can tell them apart.

    A length can where hardly an answer that it was not learned from has one of its n-grams.
    """
    following: dict[Tokens, set[int]] = defaultdict(set)
    halves = answers[::2], answers[1::2]
    for order in ORDERS:
        alarms = 0
        for known, unseen in (halves, halves[::-1]):
            telling = _telling(order, refusals, known, stops)
            alarms += sum(not telling.isdisjoint(_ngrams(answer, order)) for answer in unseen)
        if alarms <= FALSE_ALARMS * len(answers):
            for ngram in _telling(order, refusals, answers, stops):
                following[ngram[:-1]].add(ngram[-1])
    return RefusalNgrams({context: frozenset(tokens) for context, tokens in sorted(following.items())})


def _telling(order: int, refusals: Refusals, answers: Sequence[Tokens], stops: Sequence[int]) -> set[Tokens]:
    taken = {ngram for answer in answers for ngram in _ngrams(answer, order)}
    support: Counter[Tokens] = Counter()
    for prompt, replies in refusals:
        own = {*prompt, *stops}
        support.update(
            ngram
            for ngram in {ngram for reply in replies for ngram in _ngrams(reply, order)} - taken
            if own.isdisjoint(ngram)
        )
    return {ngram for ngram, prompts in support.items() if prompts >= min(SUPPORT, len(refusals))}


def _ngrams(reply: Tokens, order: int) -> set[Tokens]:
    padded = (*(START,) * (order - 1), *reply)
    return {padded[i : i + order] for i in range(len(reply))}


def refusal_scores(
    logits: Sequence[Float[Tensor, "_token vocabulary"]], marks: Sequence[tuple[Tensor, Tensor]]
) -> Float[Tensor, "reply"]:
    """For each reply the log-odds, in nats, that it turns into a refusal at one of its places.

    With m_t the probability of the tokens marked at place t, given the reply so far:
    log(1 − Π(1 − m_t)) − log Π(1 − m_t), clamped.
    """
    mass = torch.zeros(len(logits), max(map(len, logits), default=0), dtype=torch.float64)
    for row, said, (places, tokens) in zip(mass, logits, marks, strict=True):
        row.index_add_(0, places, said.double().softmax(-1)[places, tokens].to(row.device))
    stays = torch.log1p(-mass.clamp(max=1 - 1e-15)).sum(-1).clamp(max=-1e-15)
    return (torch.log(-torch.expm1(stays)) - stays).clamp(-LIMIT, LIMIT)
