"""The weighted sum of task vectors, exact on factors (task arithmetic, arXiv 2212.04089)."""

from __future__ import annotations

from collections.abc import Sequence

from palette.adapters.factorisation import concatenate
from palette.adapters.lora import LoraModule


def weighted_sum(modules: Sequence[LoraModule], weights: Sequence[float]) -> LoraModule:
    """ΔW = Σᵢ wᵢ ΔWᵢ as the factors B = [w₁s₁B₁ | …], A = [A₁; …] (arXiv 2212.04089, eq. 1).

    Nothing is rounded but the products wᵢsᵢBᵢ, in float64. The ranks add.
    """
    return concatenate(modules, weights)
