"""TIES-Merging: trim, elect sign, disjoint merge (arXiv 2306.01708)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palette.adapters.lora import LoraModule
from palette.shapes import Float, Tensor


def ties(
    modules: Sequence[LoraModule], weights: Sequence[float], *, density: float
) -> Float[Tensor, "d_out d_in"]:
    """The disjoint mean of trimmed, weighted task vectors, dense (arXiv 2306.01708, section 4).

    With τᵢ = wᵢ ΔWᵢ and keepᵢ the ``density`` share of its entries of largest magnitude:

        τ̂ᵢ = keepᵢ ∘ τᵢ,   γ = sgn(Σᵢ τ̂ᵢ),   τ = mean of the τ̂ᵢ whose sign is γ, entry by entry

    Three choices that implementations differ in: each tensor is trimmed by itself (the paper trims
    the whole vector at once), signs are elected after weighting (PEFT elects before), and the mean
    divides by the number of agreeing task vectors (mergekit divides by the sum of their weights).
    """
    trimmed = [
        trim(weight * module.delta(), density) for module, weight in zip(modules, weights, strict=True)
    ]
    total = torch.zeros_like(trimmed[0])
    for task_vector in trimmed:
        total += task_vector
    elected = total.sign()
    merged, count = torch.zeros_like(total), torch.zeros_like(total)
    for task_vector in trimmed:
        agrees = (task_vector.sign() == elected) & (elected != 0)
        merged += torch.where(agrees, task_vector, 0.0)
        count += agrees
    return merged / count.clamp(min=1)


def trim(task_vector: Float[Tensor, "d_out d_in"], density: float) -> Float[Tensor, "d_out d_in"]:
    """The ``density`` share of entries of largest magnitude, at least one; the rest set to 0.

    Entries equal to the smallest one kept are kept too, so that no order of entries decides.
    """
    magnitude = task_vector.abs().flatten()
    keep = max(1, round(density * magnitude.numel()))
    threshold = magnitude.kthvalue(magnitude.numel() - keep + 1).values
    return torch.where(task_vector.abs() >= threshold, task_vector, 0.0)
