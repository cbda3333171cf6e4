"""Means and covariances of the residual stream over prompts, in memory that does not grow with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from palette.activations import captured
from palette.backbones import Backbone, Batch, batches
from palette.backbones.cache import common_start
from palette.backbones.prefixes import continued, read_prefix
from palette.processes import Advance, unheard
from palette.shapes import Float, Tensor
from palette.threads import beside, lanes

Means = Float[Tensor, "site position d_model"]
Covariance = Float[Tensor, "site position d_model d_model"]


class WithinCovariance:
    """The mean of several sets' covariances, each about its own mean, in the room of a single one.

    Of a wide model it is the largest thing in memory: every set adds its weighted squares to the same
    numbers, and the means are taken off in the end.
    """

    def __init__(self, sites: int, tokens: int, d_model: int) -> None:
        self._total = torch.zeros((sites, tokens, d_model, d_model), dtype=torch.float64)

    def add(self, site: int, last: Float[Tensor, "position row d_model"], weight: float) -> None:
        """Adds the squares of some rows, each of so much weight."""
        self._total[site].baddbmm_(last.transpose(1, 2), last, alpha=weight)

    def about(self, means: Sequence[Means]) -> Covariance:
        """The mean covariance of the sets of these means, of whose rows all weights were added."""
        for mean in means:
            for squares, each in zip(self._total, mean, strict=True):
                squares.baddbmm_(each.unsqueeze(2), each.unsqueeze(1), alpha=-1 / len(means))
        return self._total


class StreamingMoments:
    """Means of the residual stream over prompts, in memory that does not grow with their number."""

    def __init__(self, sites: int, tokens: int, d_model: int) -> None:
        self.count = 0
        self.sums = torch.zeros((sites, tokens, d_model), dtype=torch.float64)

    @property
    def means(self) -> Float[Tensor, "site position d_model"]:
        """The means so far."""
        return self.sums / max(1, self.count)

    def read(
        self,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        advance: Advance = unheard,
        within: WithinCovariance | None = None,
        weight: float = 1.0,
    ) -> StreamingMoments:
        """Runs the backbone over the prompts once and adds every site; returns itself.

        ``within`` is given the squares of every prompt, each of so much ``weight``.
        """
        for streams in last_streams(backbone, prompts, self.sums.shape[1]):
            for site, stream in enumerate(streams):
                last = stream.to("cpu", torch.float64).transpose(0, 1)
                self.sums[site] += last.sum(1)
                if within is not None:
                    within.add(site, last, weight)
            self.count += len(streams[0])
            advance(len(streams[0]))
        return self

    def absorb(self, other: StreamingMoments) -> StreamingMoments:
        """Adds those of another set of prompts, in place; returns itself."""
        self.count += other.count
        self.sums += other.sums
        return self


def last_streams(
    backbone: Backbone, prompts: Sequence[Sequence[int]], tokens: int
) -> Iterator[list[Float[Tensor, "batch position d_model"]]]:
    """The streams of prompts' last tokens at every site, batch by batch; what all begin with is read once."""
    # Short of the tokens that are asked for.
    start = common_start(backbone, [prompt[: len(prompt) - tokens + 1] for prompt in prompts])
    with torch.no_grad():
        prefix = read_prefix(backbone, start) if start else None
    device = backbone.model.device
    idle = deque(backbone.twins(lanes(device)))

    @torch.no_grad()
    def found(batch: Batch) -> list[Tensor]:
        streams: list[Tensor] = []
        twin = idle.pop()
        with captured(twin.blocks, lambda site, stream: streams.append(stream[:, -tokens:].clone())):
            continued(twin, batch, 1, prefix)
        idle.append(twin)
        return streams

    behind = [prompt[len(start) :] for prompt in prompts]
    pieces = (partial(found, batch) for batch in batches(behind, backbone.pad, device))
    yield from beside(pieces, lanes(device))
