"""Keys and values of what stands before trained tokens: nothing trained can change them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palette.backbones import Backbone, batches
from palette.backbones.scoring import Cache, cache_of, forward, held_by
from palette.shapes import Float, Int, Tensor

Known = list[tuple[Float[Tensor, "_head past _d"], Float[Tensor, "_head past _d"]]]
"""The keys and values of one sequence, layer by layer."""


class PrefixCache:
    """The bare backbone's keys and values of some sequences, worked out when they are first asked for.

    They are kept up to so many GiB; beyond that they are worked out again.
    """

    def __init__(self, backbone: Backbone, heads: Sequence[Sequence[int]], most: float) -> None:
        self.backbone, self.heads = backbone, heads
        self.room = most * 2**30
        self.known: dict[int, Known] = {}

    def cache(self, rows: Sequence[int]) -> tuple[Cache, Int[Tensor, "batch past"]]:
        """A cache of the sequences of some rows, left-padded, to be gone on from, and its mask."""
        asked = {row: self.known[row] for row in rows if row in self.known}
        if missing := sorted(set(rows) - set(asked)):
            for row, found in zip(missing, self._read(missing), strict=True):
                asked[row] = found
                self.room -= sum(t.numel() * t.element_size() for layer in found for t in layer)
                if self.room >= 0:
                    self.known[row] = found
        longest = max(len(self.heads[row]) for row in rows)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for line, row in enumerate(rows):
            mask[line, longest - len(self.heads[row]) :] = 1
        layers = range(len(next(iter(asked.values()))))
        whole = [
            (
                torch.stack([_padded(asked[row][layer][0], longest) for row in rows]),
                torch.stack([_padded(asked[row][layer][1], longest) for row in rows]),
            )
            for layer in layers
        ]
        return cache_of(whole), mask.to(self.backbone.model.device)

    @torch.no_grad()
    def _read(self, rows: Sequence[int]) -> list[Known]:
        found: dict[int, Known] = {}
        sequences = [self.heads[row] for row in rows]
        for batch in batches(sequences, self.backbone.pad, self.backbone.model.device):
            cache = Cache()
            forward(self.backbone, batch, 1, cache)
            held = held_by(cache)
            for line, index in enumerate(batch.rows):
                length = len(sequences[index])
                found[index] = [(k[line, :, -length:].clone(), v[line, :, -length:].clone()) for k, v in held]
        return [found[index] for index in range(len(rows))]


def _padded(tensor: Float[Tensor, "_head past _d"], longest: int) -> Float[Tensor, "_head longest _d"]:
    return torch.nn.functional.pad(tensor, (0, 0, longest - tensor.shape[1], 0))
