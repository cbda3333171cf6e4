"""Directions by modality: how alike those of requests in words, beside a picture and in one are, by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from palette.directions import unit
from palette.evaluation.subjects import Requests, Tokens
from palette.moments import Means, StreamingMoments
from palette.prompts.pictures import MODALITIES

Part = tuple[str, int]
"""A modality, and which half of its prompts."""
Parts = Mapping[Part, StreamingMoments]


def several(requests: Iterable[Requests]) -> bool:
    """Whether prompts are of more than one modality."""
    return len({MODALITIES[row.cell] for each in requests for row in each.rows}) > 1


def parted(requests: Requests, *, halved: bool) -> dict[Part, list[Tokens]]:
    """The prompts of each modality in two halves, every other one in the second; else all in one."""
    parts: dict[Part, list[Tokens]] = {}
    for row, prompt in zip(requests.rows, requests.prompts, strict=True):
        name = MODALITIES[row.cell] if halved else ""
        seen = sum(len(part) for (modality, _), part in parts.items() if modality == name)
        parts.setdefault((name, seen % 2 if halved else 0), []).append(list(prompt))
    return parts


def summed(parts: Iterable[StreamingMoments]) -> StreamingMoments:
    """The moments of all parts together."""
    first, *others = parts
    whole = StreamingMoments(*first.sums.shape).absorb(first)
    for each in others:
        whole.absorb(each)
    return whole


def similarities(target: Parts, benign: Parts) -> dict[str, list[list[float]]]:
    """The cosines of the differences in means at every site and position, by what is compared.

    ``words-picture`` are two modalities. ``words-words`` are the two halves of one, whose cosine is the
    measure of the others: a mean of few prompts is uncertain, and no pair is more alike than its halves.
    """
    shared = {key for key in target if key in benign}
    names = [name for name in dict.fromkeys(MODALITIES.values()) if {(name, 0), (name, 1)} <= shared]

    def direction(*keys: Part) -> Means:
        ends = (summed(role[key] for key in keys).means for role in (target, benign))
        return unit(next(ends) - next(ends))

    whole = {name: direction((name, 0), (name, 1)) for name in names}
    found = {f"{a}-{b}": (whole[a] * whole[b]).sum(-1) for a, b in combinations(names, 2)}
    found |= {f"{a}-{a}": (direction((a, 0)) * direction((a, 1))).sum(-1) for a in names}
    return {name: cosines.tolist() for name, cosines in found.items()}
