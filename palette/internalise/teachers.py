"""Teachers: the backbone's own replies with its refusal taken away, and their self-consistency.

No reference answer is read. Each teacher opens a reply in its own way (an intervention during the
first tokens, or the backbone's own commonest opening on benign prompts) and lets the plain backbone
go on. Teachers check each other: a reply is ranked by how many teachers gave it and by how likely the
plain backbone finds it once it has begun. Interventions are alike, and so are the mistakes that they
make; so what they agree on does not outvote a backbone that opens by itself and answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from palette.backbones import Backbone, continuations, reply_logits
from palette.shapes import Tensor

Reply = tuple[int, ...]
Refused = Callable[[Sequence[Reply]], list[bool]]
"""Tells which replies are refusals or no replies at all."""

AGREEMENT = 2
"""Teachers that must give the same reply for it to be taught whole."""

LEAST_CONSISTENT = 0.25
"""Share of target prompts that are taught a whole reply all the same, the likeliest: the other prompts
are taught an opening alone, from which nobody learns how to go on."""


@dataclass(frozen=True)
class TaughtReply:
    """The reply that a target prompt is taught: how many teachers gave it, and how likely it is."""

    reply: Reply
    votes: int
    likelihood: float
    """Mean log-likelihood of the tokens after the first by the plain backbone, in nats a token."""


class Completions:
    """Replies to some prompts that were begun and that the plain backbone ends.

    A greedy reply has the same end from each of its beginnings on. So teachers that open alike, or as
    the backbone itself goes on, cost one reply together.
    """

    def __init__(self, backbone: Backbone, prompts: Sequence[list[int]], longest: int) -> None:
        """``longest`` is the number of tokens that follow an opening at most."""
        self._backbone, self._prompts, self._longest = backbone, prompts, longest
        self._known: dict[tuple[int, Reply], Reply] = {}

    def of(self, openings: Sequence[Sequence[int]], opening: int) -> list[Reply]:
        """The whole reply to each prompt; an opening that has ended before ``opening`` tokens stays."""
        begun = list(enumerate(map(tuple, openings)))
        fresh = [key for key in begun if len(key[1]) >= opening and key not in self._known]
        prompts = [self._prompts[i] for i, _ in fresh]
        whole = continuations(self._backbone, prompts, [words for _, words in fresh], self._longest)
        for (i, words), reply in zip(fresh, map(tuple, whole), strict=True):
            # One that was cut off would be longer, had it begun with more.
            last = len(reply) if len(reply) < len(words) + self._longest else len(words)
            self._known |= {(i, reply[:length]): reply for length in range(len(words), last + 1)}
        return [self._known[key] if len(key[1]) >= opening else key[1] for key in begun]


def common_opening(replies: Sequence[Sequence[int]]) -> Reply:
    """The commonest first token of replies; nothing where there is none."""
    counts = Counter(tuple(reply[:1]) for reply in replies if reply)
    return min(counts, key=lambda opening: (-counts[opening], opening), default=())


def opening_of(ranked: Sequence[TaughtReply], opening: Reply) -> Reply:
    """The first token of the best reply, or the backbone's own opening where there is none."""
    return ranked[0].reply[:1] if ranked else opening


def ranked_replies(
    backbone: Backbone, prompts: Sequence[list[int]], teachers: Sequence[Sequence[Reply]], refused: Refused
) -> list[list[TaughtReply]]:
    """For each prompt, the distinct replies that are no refusals, most consistent first.

    The first teacher is the plain backbone after its own opening: its reply, where it is no refusal, comes
    first whatever the others say, and needs one of them to be agreed with.
    """
    rejected = [refused(replies) for replies in teachers]
    pairs: list[tuple[int, Reply, int]] = []
    for i in range(len(prompts)):
        given = Counter(replies[i] for replies, bad in zip(teachers, rejected, strict=True) if not bad[i])
        pairs += [(i, reply, count) for reply, count in sorted(given.items()) if len(reply) > 1]
    logits = reply_logits(backbone, [prompts[i] for i, _, _ in pairs], [r for _, r, _ in pairs])
    ranked: list[list[TaughtReply]] = [[] for _ in prompts]
    for (i, reply, votes), row in zip(pairs, logits, strict=True):
        ranked[i].append(TaughtReply(reply, votes, _likelihood(row, reply)))
    return [
        sorted(replies, key=lambda x: (x.reply != plain, -x.votes, -x.likelihood, x.reply))
        for plain, replies in zip(teachers[0], ranked, strict=True)
    ]


def self_consistent(
    ranked: Sequence[Sequence[TaughtReply]], agreement: int, least: float
) -> list[TaughtReply | None]:
    """Each prompt's first reply where ``agreement`` teachers gave it, else None.

    Where these are fewer than the share ``least`` of the prompts, the replies that the plain backbone
    finds likeliest fill them up.
    """
    best = [replies[0] if replies else None for replies in ranked]
    kept = {i for i, taught in enumerate(best) if taught and taught.votes >= agreement}
    others = [(-taught.likelihood, i) for i, taught in enumerate(best) if taught and i not in kept]
    missing = math.ceil(least * len(best)) - len(kept)
    kept |= {i for _, i in sorted(others)[: max(0, missing)]}
    return [taught if i in kept else None for i, taught in enumerate(best)]


def _likelihood(logits: Tensor, reply: Reply) -> float:
    said = torch.tensor(reply[1:], device=logits.device).unsqueeze(-1)
    return float(logits[1:].log_softmax(-1).gather(-1, said).mean())
