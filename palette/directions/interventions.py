"""Interventions: frozen values, applied by O(d) hooks inside a ``with``.

With r the unit refusal direction, μ the benign mean at the site, λ the strength:

- ``directional_ablation``: x − λ(x·r)r (arXiv 2406.11717);
- ``centred_ablation``: x − λ((x−μ)·r)r (arXiv 2411.09003);
- ``activation_addition``: x − λ((m−μ)·r)r, m the target mean: λ = 1 moves one mean onto the other;
- ``weight_orthogonalisation``: W − λr(rᵀW) for the linears that write to the stream in the block
  below the site (arXiv 2406.11717).

All four are one edit of rank one, x − (a(x·r) + b)r, with other a and b.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from palette.activations import EditPlace, Edits, RankOneEdit, applied
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.backbones import Backbone
from palette.backbones.architectures import linear_weight
from palette.directions.candidates import Directions

INTERVENTIONS = (
    "directional_ablation",
    "centred_ablation",
    "activation_addition",
    "weight_orthogonalisation",
)


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
    """One edit: the method, the direction's name and place, and the kernel."""

    method: str
    position: int
    kernel: StrengthKernel
    direction: str = "difference"

    def edits(self, directions: Directions) -> dict[EditPlace, RankOneEdit]:
        """The edit at every place where the strength is not zero.

        Raises:
            ValueError: if the method is not one of ``INTERVENTIONS``.
        """
        if self.method not in INTERVENTIONS:
            raise ValueError(f"method must be one of {', '.join(INTERVENTIONS)}, got {self.method!r}")
        sites = [s for s in range(1, len(directions.target)) if self.kernel.at(s) != 0.0]
        return {self._place(site): self._edit(directions, site) for site in sites}

    def _place(self, site: int) -> EditPlace:
        return ("writers", site - 1) if self.method == "weight_orthogonalisation" else ("stream", site)

    def _edit(self, directions: Directions, site: int) -> RankOneEdit:
        r = directions.unit(self.kernel.peak, self.position, self.direction)
        strength = self.kernel.at(site)
        slope, offset = strength, 0.0
        if self.method == "centred_ablation":
            offset = -strength * float(directions.benign[site, self.position] @ r)
        if self.method == "activation_addition":
            slope, offset = 0.0, strength * float(directions.difference[site, self.position] @ r)
        return RankOneEdit(
            r.float().unsqueeze(0), torch.tensor([slope]).float(), torch.tensor([offset]).float()
        )

    def to_json(self) -> dict[str, object]:
        """The intervention as plain values."""
        return {
            "method": self.method,
            "direction": self.direction,
            "position": self.position,
            **vars(self.kernel),
        }


@contextmanager
def intervening(backbone: Backbone, directions: Directions, intervention: Intervention) -> Iterator[None]:
    """The backbone with the intervention on, for every forward pass in the block."""
    with editing(backbone, intervention.edits(directions)):
        yield


@contextmanager
def editing(backbone: Backbone, edits: Edits) -> Iterator[None]:
    """The backbone with edits on, for every forward pass in the block."""
    writing = any(kind == "writers" for kind, _ in edits)
    with applied(backbone.blocks, backbone.writers if writing else None, edits):
        yield


def orthogonalisation_adapter(
    backbone: Backbone, directions: Directions, intervention: Intervention
) -> Adapter:
    """The adapter of rank 1 that is weight orthogonalisation, exactly: ΔW = −λ r (rᵀW).

    Biases are left as they are, as the intervention leaves them.

    Raises:
        ValueError: if the intervention is of another method.
    """
    if intervention.method != "weight_orthogonalisation":
        raise ValueError(f"only weight_orthogonalisation is an adapter, got {intervention.method}")
    paths = {module: path for path, module in backbone.model.named_modules()}
    modules = {}
    for (_, block), edit in intervention.edits(directions).items():
        r, strength = edit.direction[0].double(), float(edit.slope[0])
        for writer in backbone.writers[block]:
            weight = linear_weight(writer).detach().double().cpu()
            down = (-strength * (r @ weight)).unsqueeze(0)
            modules[paths[writer]] = LoraModule(down.float(), r.unsqueeze(1).float())
    return Adapter(modules, BackboneIdentity(backbone.name, backbone.fingerprint))
