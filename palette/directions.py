"""Refusal directions: candidates, and the interventions made from them.

With d = μ_target − μ_benign at a site and a position (difference in means, arXiv 2406.11717), the candidates:

- ``difference``: d;
- ``projected``: d − (d·b̂)b̂, b̂ the unit benign mean: what every prompt shares is left alone;
- ``cleaned``: d − Cᵀ(CCᵀ + λI)⁻¹C d, the rows of C the benign domains' means less the benign mean: what
  tells benign topics apart is left alone (ridge, arXiv 2601.08489);
- ``whitened``: (Σ + λI)⁻¹ d, Σ the mean covariance within the two sets (Fisher's discriminant).

A name that begins with ``pooled_`` has the mean of all restricted prompts in the place of the target's.

An intervention is a frozen value, applied by O(d) hooks inside a ``with``. With r the unit refusal
direction, μ the benign mean at the site, λ the strength:

- ``directional_ablation``: x − λ(x·r)r (arXiv 2406.11717);
- ``centred_ablation``: x − λ((x−μ)·r)r (arXiv 2411.09003);
- ``activation_addition``: x − λ((m−μ)·r)r, m the target mean: λ = 1 moves one mean onto the other;
- ``weight_orthogonalisation``: W − λr(rᵀW) for the linears and experts that write to the stream in the
  block below the site (arXiv 2406.11717); behind W, an RMSNorm of gain g makes r into g∘r, of unit length.

All four are one edit of rank one, x − (a(x·r) + b)r, with other a and b.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from palette.activations import EditPlace, Edits, RankOneEdit, applied
from palette.backbones import Backbone
from palette.moments import Covariance, Means
from palette.shapes import Float, Tensor

CANDIDATE_RIDGE = 1e-2
"""λ as a share of the mean diagonal entry."""

POOLED = "pooled_"
CONTRASTS = ("difference", "projected", "cleaned", "whitened")
CANDIDATES = (*CONTRASTS, *(POOLED + kind for kind in CONTRASTS))


@dataclass(frozen=True)
class Directions:
    """Mean residual streams of target and of benign prompts, and the candidate directions."""

    target: Means
    benign: Means
    candidates: Mapping[str, Means] = field(default_factory=dict)
    """Unit directions by name; ``difference`` is always known."""

    @property
    def difference(self) -> Means:
        """Difference in means, target − benign, not unit length."""
        return self.target - self.benign

    def unit(self, site: int, position: int, name: str = "difference") -> Float[Tensor, "d_model"]:
        """The refusal direction of a site and a (negative) position, of unit length.

        Raises:
            ValueError: if there is no candidate of that name.
        """
        if name in self.candidates:
            return self.candidates[name][site, position]
        if name != "difference":
            raise ValueError(f"a direction must be one of {', '.join(self.candidates)}, got {name!r}")
        return unit(self.difference[site, position])

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names."""
        return tuple(self.candidates) or ("difference",)


def candidates(
    target: Means, pooled: Means, benign: Means, concepts: Sequence[Means], within: Covariance | None
) -> dict[str, Means]:
    """Every candidate direction, of unit length; the whitened ones only where ``within`` is known.

    ``concepts`` are the benign means of single domains, ``within`` the covariance within the sets.
    """
    directions = {}
    for prefix, mean in (("", target), (POOLED, pooled)):
        d = mean - benign
        directions[f"{prefix}difference"] = unit(d)
        directions[f"{prefix}projected"] = unit(projected(d, benign))
        directions[f"{prefix}cleaned"] = unit(cleaned(d, [concept - benign for concept in concepts]))
        if within is not None:
            directions[f"{prefix}whitened"] = unit(whitened(d, within))
    return {name: directions[name] for name in CANDIDATES if name in directions}


def unit(vectors: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    """Vectors of length 1; null ones stay null."""
    scaled: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return scaled


def projected(d: Means, benign: Means) -> Means:
    """D − (d·b̂)b̂ with b̂ the unit benign mean."""
    b = unit(benign)
    return d - (d * b).sum(-1, keepdim=True) * b


def cleaned(d: Means, concepts: Sequence[Means]) -> Means:
    """D less its ridge regression on the benign concepts."""
    if not concepts:
        return d
    c = torch.stack(list(concepts), dim=-2)
    gram = c @ c.transpose(-1, -2)
    solved = torch.linalg.solve(_ridged(gram), (c @ d.unsqueeze(-1)))
    shared: Tensor = (c.transpose(-1, -2) @ solved).squeeze(-1)
    return d - shared


def whitened(d: Means, within: Covariance) -> Means:
    """(Σ + λI)⁻¹ d."""
    solved = torch.empty(d.shape, dtype=d.dtype, device=d.device)
    # One by one, since each solution takes the room of two more covariances; and none is kept as it came: it
    # would lie in what the one before left, so that the next did not fit there.
    for into, each, row in zip(*(part.flatten(0, 1) for part in (solved, within, d)), strict=True):
        into.copy_(torch.linalg.solve(_ridged(each), row.unsqueeze(-1)).squeeze(-1))
    return solved


def separation(direction: Means, difference: Means, within: Covariance) -> Float[Tensor, "site position"]:
    """Standard deviations between target and benign along r: d-prime = d·r / √(rᵀΣr)."""
    spread = torch.einsum("spd,spde,spe->sp", direction, within, direction).clamp(min=1e-12).sqrt()
    return (direction * difference).sum(-1) / spread


def _ridged(matrix: Float[Tensor, "*shape n n"]) -> Float[Tensor, "*shape n n"]:
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + CANDIDATE_RIDGE * scale[..., None, None] * eye


INTERVENTIONS = (
    "directional_ablation",
    "centred_ablation",
    "activation_addition",
    "weight_orthogonalisation",
)


@dataclass(frozen=True)
class StrengthKernel:
    """Strength as a function of the site: the same at the peak and ``width`` sites to either side."""

    peak: int
    width: int
    strength: float

    def at(self, site: int) -> float:
        """The strength at a site."""
        return self.strength if abs(site - self.peak) <= self.width else 0.0


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
        if self.method == "weight_orthogonalisation":
            return {("writers", site - 1): self._edit(directions, site) for site in sites}
        return {("stream", site): self._edit(directions, site) for site in sites}

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
    placed = {place: edit.on(backbone.model.device) for place, edit in edits.items()}
    # The writers first: to find them, the model has to be run as it is.
    writers, gains = (backbone.writers, backbone.gains) if writing else (None, None)
    with applied(backbone.blocks, writers, placed, gains):
        yield
