"""Tokens that stand before others, read once: their keys and values, and passes that go on from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from palette.backbones.backbone import Backbone, shared
from palette.backbones.scoring import Batch, KeysValues, batches, cache_of, forward, held_by, marked, padded
from palette.shapes import Int, Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Prefix:
    """Tokens that were read: their keys and values, and which of them are real (``marked``)."""

    known: KeysValues
    mask: Int[Tensor, "row past"]


def shared_prefix(sequences: Sequence[Sequence[int]], least: int = 1) -> tuple[int, ...]:
    """The tokens that all sequences begin with, at least one short of the shortest; none below ``least``."""
    count = min(shared(sequences), min(map(len, sequences), default=1) - 1)
    return tuple(sequences[0][:count]) if count >= least else ()


def widened(known: KeysValues, rows: int) -> DynamicCache:
    """A cache of so many rows of each row, one after the other; its gradient is the sum of theirs."""

    def wide(states: Tensor) -> Tensor:
        return states.unsqueeze(1).expand(-1, rows, *states.shape[1:]).flatten(0, 1)

    return cache_of([(wide(keys), wide(values)) for keys, values in known])


def read_prefix(backbone: Backbone, tokens: Sequence[int]) -> Prefix:
    """The tokens read once, as a batch of one, in the model's present state."""
    return prefilled(backbone, padded([tokens], [0], backbone.pad, backbone.model.device), None)[1]


def prefilled(backbone: Backbone, batch: Batch, prefix: Prefix | None) -> tuple[Tensor, Prefix]:
    """The logits after each row, and what its tokens left behind those of the prefix that all begin with."""
    rows = len(batch.rows)
    cache = widened(prefix.known, rows) if prefix else DynamicCache()
    before = prefix.mask.expand(rows, -1) if prefix else batch.mask.new_ones(rows, 0)
    logits = forward(backbone, batch, 1, cache, before)[:, -1]
    return logits, Prefix(held_by(cache), torch.cat([before, marked(backbone, batch)], dim=1))


def continued(backbone: Backbone, batch: Batch, keep: int, prefix: Prefix | None) -> Tensor:
    """The logits of a batch's last ``keep`` positions; its rows go on from the prefix, where there is one."""
    if prefix is None:
        return forward(backbone, batch, keep)
    rows = len(batch.rows)
    return forward(backbone, batch, keep, widened(prefix.known, rows), prefix.mask.expand(rows, -1))


class Memo(Generic[T]):
    """What is worked out by row when it is first asked for, and kept up to so many GiB.

    Beyond that it is worked out again.
    """

    def __init__(self, work: Callable[[list[int]], list[T]], size: Callable[[T], int], most: float) -> None:
        """``work`` gives what belongs to some rows, ``size`` the bytes of one."""
        self._work, self._size, self._room = work, size, most * 2**30
        self._known: dict[int, T] = {}

    def __call__(self, rows: Sequence[int]) -> list[T]:
        """What belongs to the rows, in their order."""
        recalled = {row: self._known[row] for row in rows if row in self._known}
        if missing := sorted(set(rows) - set(recalled)):
            for row, fresh in zip(missing, self._work(missing), strict=True):
                recalled[row] = fresh
                self._room -= self._size(fresh)
                if self._room >= 0:
                    self._known[row] = fresh
        return [recalled[row] for row in rows]


class PrefixCache:
    """The bare backbone's keys and values of the prefixes of rows, each with one of its own."""

    def __init__(self, backbone: Backbone, prefixes: Sequence[Sequence[int]], most: float) -> None:
        """``most`` is the memory in GiB; prefixes beyond are read again."""
        self.backbone, self.prefixes = backbone, prefixes
        self._recall = Memo(self._read, lambda known: sum(k.nbytes + v.nbytes for k, v in known), most)

    def cache(self, rows: Sequence[int]) -> tuple[DynamicCache, Int[Tensor, "batch past"]]:
        """A cache of the prefixes of some rows, left-padded, to be gone on from, and its mask."""
        prefixes = [self.prefixes[row] for row in rows]
        mask = padded(prefixes, range(len(rows)), 0, self.backbone.model.device).mask

        def stacked(parts: Sequence[Tensor]) -> Tensor:
            return torch.stack([pad(part, (0, 0, mask.shape[1] - part.shape[1], 0)) for part in parts])

        # From layer by layer of each row to row by row of each layer.
        layers = [zip(*pairs, strict=True) for pairs in zip(*self._recall(rows), strict=True)]
        return cache_of([(stacked(keys), stacked(values)) for keys, values in layers]), mask

    @torch.no_grad()
    def _read(self, rows: list[int]) -> list[list[tuple[Tensor, Tensor]]]:
        """Of each row, layer by layer, keys and values [head, past, d]."""
        read: dict[int, list[tuple[Tensor, Tensor]]] = {}
        sequences = [self.prefixes[row] for row in rows]
        for batch in batches(sequences, self.backbone.pad, self.backbone.model.device):
            known = prefilled(self.backbone, batch, None)[1].known
            for line, row in enumerate(batch.rows):
                length = len(sequences[row])
                read[row] = [(k[line, :, -length:].clone(), v[line, :, -length:].clone()) for k, v in known]
        return [read[row] for row in range(len(rows))]
