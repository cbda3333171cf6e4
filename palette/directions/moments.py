"""Means and covariance of the residual stream, in float64, while prompts stream by (arXiv 2605.24154)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palette.activations import captured
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.shapes import Float, Tensor


class StreamingMoments:
    """Moments of the residual stream over prompts, in memory that does not grow with their number."""

    def __init__(self, sites: int, tokens: int, d_model: int, *, covariance: bool = False) -> None:
        self.count = 0
        self.sums = torch.zeros((sites, tokens, d_model), dtype=torch.float64)
        shape = (sites, tokens, d_model, d_model)
        self.squares = torch.zeros(shape, dtype=torch.float64) if covariance else None

    def add(self, site: int, stream: Float[Tensor, "batch position d_model"]) -> None:
        """Adds a batch's last positions at one site."""
        tokens = self.sums.shape[1]
        last = stream[:, -tokens:].detach().to("cpu", torch.float64).transpose(0, 1)
        self.sums[site] += last.sum(1)
        if self.squares is not None:
            self.squares[site].baddbmm_(last.transpose(1, 2), last)

    @property
    def means(self) -> Float[Tensor, "site position d_model"]:
        """The means so far."""
        return self.sums / max(1, self.count)

    @property
    def covariance(self) -> Float[Tensor, "site position d_model d_model"] | None:
        """The covariance so far (divided by the count), or None where it is not kept."""
        if self.squares is None:
            return None
        means = self.means
        return self.squares / max(1, self.count) - means.unsqueeze(-1) * means.unsqueeze(-2)

    @torch.no_grad()
    def read(self, backbone: Backbone, prompts: Sequence[Sequence[int]]) -> StreamingMoments:
        """Runs the backbone over the prompts once and adds every site; returns itself."""
        for batch in batches(prompts, backbone.pad, backbone.model.device):
            with captured(backbone.blocks, self.add):
                forward(backbone, batch)
            self.count += len(batch.rows)
        return self

    def joined(self, other: StreamingMoments) -> StreamingMoments:
        """The moments of both sets of prompts together."""
        sites, tokens, d_model = self.sums.shape
        both = StreamingMoments(sites, tokens, d_model)
        both.count = self.count + other.count
        both.sums = self.sums + other.sums
        if self.squares is not None and other.squares is not None:
            both.squares = self.squares + other.squares
        return both
