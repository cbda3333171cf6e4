"""Interventions on the residual stream: frozen values, applied by O(d) hooks inside a ``with``.

With r the unit refusal direction, μ the benign mean at the site, λ the strength:

- ``directional_ablation``: x − λ(x·r)r (arXiv 2406.11717);
- ``centred_ablation``: x − λ((x−μ)·r)r (arXiv 2411.09003);
- ``activation_addition``: x − λ((m−μ)·r)r, m the target mean: λ = 1 moves one mean onto the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from palette.activations import Edit, edited
from palette.backbones import Backbone
from palette.directions.means import Directions
from palette.shapes import Float, Tensor

METHODS = ("directional_ablation", "centred_ablation", "activation_addition")


@dataclass(frozen=True)
class StrengthKernel:
    """Strength as a function of the site: ``strength`` at the peak, falling linearly to 0 beside it."""

    peak: int
    width: int
    strength: float

    def at(self, site: int) -> float:
        """The strength at a site."""
        return self.strength * max(0.0, 1 - abs(site - self.peak) / (self.width + 1))


@dataclass(frozen=True)
class Intervention:
    """One edit of the residual stream: the method, the direction's place and the kernel."""

    method: str
    position: int
    kernel: StrengthKernel

    def edits(self, directions: Directions) -> dict[int, Edit]:
        """The edit at every site where the strength is not zero.

        Raises:
            ValueError: if the method is not one of ``METHODS``.
        """
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        sites = range(1, len(directions.target))
        return {
            site: self._edit(directions, site, self.kernel.at(site))
            for site in sites
            if self.kernel.at(site) != 0.0
        }

    def _edit(self, directions: Directions, site: int, strength: float) -> Edit:
        r = directions.unit(self.kernel.peak, self.position)
        centre = float(directions.benign[site, self.position] @ r)
        shift = float(directions.difference[site, self.position] @ r)

        def edit(
            x: Float[Tensor, "batch position d_model"],
        ) -> Float[Tensor, "batch position d_model"]:
            unit = r.to(x.device, x.dtype)
            if self.method == "activation_addition":
                return x - strength * shift * unit
            offset = centre if self.method == "centred_ablation" else 0.0
            return x - strength * ((x @ unit) - offset).unsqueeze(-1) * unit

        return edit

    def to_json(self) -> dict[str, object]:
        """The intervention as plain values."""
        return {"method": self.method, "position": self.position, **vars(self.kernel)}


@contextmanager
def intervening(backbone: Backbone, directions: Directions, intervention: Intervention) -> Iterator[None]:
    """The backbone with the intervention on, for every forward pass in the block."""
    with edited(backbone.blocks, intervention.edits(directions)):
        yield
