"""Difference in means, accumulated in float64 while prompts stream by (Palette, arXiv 2605.24154)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from palette.activations import captured
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.shapes import Float, Tensor


class StreamingMeans:
    """Means of the residual stream over prompts, in memory that does not grow with their number."""

    def __init__(self, sites: int, tokens: int, d_model: int) -> None:
        self.count = 0
        self.sums = torch.zeros((sites, tokens, d_model), dtype=torch.float64)

    def add(self, site: int, stream: Float[Tensor, "batch position d_model"]) -> None:
        """Adds a batch's last positions at one site."""
        tokens = self.sums.shape[1]
        self.sums[site] += stream[:, -tokens:].detach().to("cpu", torch.float64).sum(0)

    @property
    def means(self) -> Float[Tensor, "site position d_model"]:
        """The means so far."""
        return self.sums / max(1, self.count)

    @torch.no_grad()
    def read(self, backbone: Backbone, prompts: Sequence[Sequence[int]]) -> StreamingMeans:
        """Runs the backbone over the prompts once and adds every site; returns itself."""
        for batch in batches(prompts, backbone.pad, backbone.model.device):
            with captured(backbone.blocks, self.add):
                forward(backbone, batch)
            self.count += len(batch.rows)
        return self


@dataclass(frozen=True)
class Directions:
    """Mean residual streams of target and of benign prompts at every site and position."""

    target: Float[Tensor, "site position d_model"]
    benign: Float[Tensor, "site position d_model"]

    @property
    def difference(self) -> Float[Tensor, "site position d_model"]:
        """Difference in means, target − benign, not unit length."""
        return self.target - self.benign

    def unit(self, site: int, position: int) -> Float[Tensor, "d_model"]:
        """The refusal direction of a site and a (negative) position, of unit length."""
        vector = self.difference[site, position]
        unit: Tensor = vector / vector.norm().clamp(min=1e-12)
        return unit
