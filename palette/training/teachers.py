"""Teachers: the backbone's own replies with its refusal taken away, and which of them to believe.

No reference answer is read. Each teacher opens a reply in its own way (an intervention during the
first tokens, or the backbone's own commonest opening on benign prompts) and lets the plain backbone
go on. Teachers check each other: a reply is believed by how many teachers gave it and by how likely
the plain backbone finds it once it has begun. Interventions are alike, and so are the mistakes that they
make; so what they agree on does not outvote a backbone that opens by itself and answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from palette.backbones import Backbone, continuations, greedy_replies, reply_logits
from palette.directions import Directions, Intervention, intervening
from palette.shapes import Tensor

Reply = tuple[int, ...]
Refused = Callable[[Sequence[Reply]], list[bool]]
"""Tells which replies are refusals or no replies at all."""


@dataclass(frozen=True)
class Lesson:
    """The reply that a target prompt is taught: how many teachers gave it, and how likely it is."""

    reply: Reply
    votes: int
    likelihood: float
    """Mean log-likelihood of the tokens after the first by the plain backbone, in nats a token."""


def intervened_replies(
    backbone: Backbone,
    directions: Directions,
    intervention: Intervention,
    prompts: Sequence[list[int]],
    opening: int,
    longest: int,
) -> list[Reply]:
    """Replies whose first ``opening`` tokens are said under the intervention, the rest plainly."""
    with intervening(backbone, directions, intervention):
        openings = greedy_replies(backbone, prompts, opening)
    return complete(backbone, prompts, openings, opening, longest)


def complete(
    backbone: Backbone,
    prompts: Sequence[list[int]],
    openings: Sequence[Sequence[int]],
    opening: int,
    longest: int,
) -> list[Reply]:
    """Openings completed by the plain backbone; one that has ended before ``opening`` tokens stays."""
    going = [i for i, begun in enumerate(openings) if len(begun) >= opening]
    whole = continuations(backbone, [prompts[i] for i in going], [openings[i] for i in going], longest)
    found = [tuple(begun) for begun in openings]
    for i, reply in zip(going, whole, strict=True):
        found[i] = tuple(reply)
    return found


def common_opening(replies: Sequence[Sequence[int]], tokens: int = 1) -> Reply:
    """The commonest first tokens of replies."""
    counts = Counter(tuple(reply[:tokens]) for reply in replies if len(reply) >= tokens)
    return min(counts, key=lambda opening: (-counts[opening], opening), default=())


def opening_of(found: Sequence[Lesson], own: Reply) -> Reply:
    """The first token of the best reply, or the backbone's own opening where there is none."""
    return found[0].reply[:1] if found else own


def lessons(
    backbone: Backbone,
    prompts: Sequence[list[int]],
    teachers: Sequence[Sequence[Reply]],
    refused: Refused,
) -> list[list[Lesson]]:
    """For each prompt, the distinct replies that are no refusals, most believable first.

    The first teacher is the plain backbone after its own opening: its reply, where it is no refusal, comes
    first whatever the others say, and needs one of them to be agreed with.
    """
    rejected = [refused(replies) for replies in teachers]
    pairs: list[tuple[int, Reply, int]] = []
    for i in range(len(prompts)):
        given = Counter(replies[i] for replies, bad in zip(teachers, rejected, strict=True) if not bad[i])
        pairs += [(i, reply, count) for reply, count in sorted(given.items()) if len(reply) > 1]
    logits = reply_logits(backbone, [prompts[i] for i, _, _ in pairs], [r for _, r, _ in pairs])
    found: list[list[Lesson]] = [[] for _ in prompts]
    for (i, reply, votes), row in zip(pairs, logits, strict=True):
        found[i].append(Lesson(reply, votes, _likelihood(row, reply)))
    plain = teachers[0]
    return [
        sorted(each, key=lambda x: (x.reply != own, -x.votes, -x.likelihood, x.reply))
        for own, each in zip(plain, found, strict=True)
    ]


def believed(found: Sequence[Sequence[Lesson]], agreement: int, least: float) -> list[Lesson | None]:
    """Each prompt's most believable reply where it is believed, else None.

    Believed are replies that ``agreement`` teachers gave. Where these are fewer than the share
    ``least`` of the prompts, the replies that the plain backbone finds likeliest fill them up.
    """
    best = [lessons[0] if lessons else None for lessons in found]
    kept = {i for i, lesson in enumerate(best) if lesson and lesson.votes >= agreement}
    others = [(-lesson.likelihood, i) for i, lesson in enumerate(best) if lesson and i not in kept]
    missing = math.ceil(least * len(best)) - len(kept)
    kept |= {i for _, i in sorted(others)[: max(0, missing)]}
    return [lesson if i in kept else None for i, lesson in enumerate(best)]


def _likelihood(logits: Tensor, reply: Reply) -> float:
    said = torch.tensor(reply[1:], device=logits.device).unsqueeze(-1)
    return float(logits[1:].log_softmax(-1).gather(-1, said).mean())
