"""Candidate refusal directions, and how well each tells target from benign prompts.

With d = μ_target − μ_benign at a site and a position (difference in means, arXiv 2406.11717):

- ``difference``: d;
- ``projected``: d − (d·b̂)b̂, b̂ the unit benign mean: what every prompt shares is left alone;
- ``cleaned``: d − Cᵀ(CCᵀ + λI)⁻¹C d, the rows of C the benign domains' means less the benign mean: what
  tells benign topics apart is left alone (ridge, arXiv 2601.08489);
- ``whitened``: (Σ + λI)⁻¹ d, Σ the mean covariance within the two sets (Fisher's discriminant).

A name that begins with ``pooled_`` has the mean of all restricted prompts in the place of the target's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from palette.shapes import Float, Tensor

CANDIDATE_RIDGE = 1e-2
"""λ as a share of the mean diagonal entry."""

POOLED = "pooled_"
CONTRASTS = ("difference", "projected", "cleaned", "whitened")
CANDIDATES = (*CONTRASTS, *(POOLED + kind for kind in CONTRASTS))

Means = Float[Tensor, "site position d_model"]
Covariance = Float[Tensor, "site position d_model d_model"]


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
    target: Means,
    pooled: Means,
    benign: Means,
    concepts: Sequence[Means],
    within: Covariance | None,
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
    solved: Tensor = torch.linalg.solve(_ridged(within), d.unsqueeze(-1))
    return solved.squeeze(-1)


def separation(direction: Means, difference: Means, within: Covariance) -> Float[Tensor, "site position"]:
    """Standard deviations between target and benign along r: d-prime = d·r / √(rᵀΣr)."""
    spread = torch.einsum("spd,spde,spe->sp", direction, within, direction).clamp(min=1e-12).sqrt()
    return (direction * difference).sum(-1) / spread


def _ridged(matrix: Float[Tensor, "*shape n n"]) -> Float[Tensor, "*shape n n"]:
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + CANDIDATE_RIDGE * scale[..., None, None] * eye
