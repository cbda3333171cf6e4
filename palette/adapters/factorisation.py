"""Low-rank factorisation of ΔW: exact sums, best truncation, the energy a rank keeps, and interference.

Energy is the squared Frobenius norm. A product of factors is truncated without forming ΔW: orthonormal
bases of both factors, then an SVD of the small core R_B R_Aᵀ (Eckart-Young: no other matrix of that
rank is nearer). All in float64. The signs of singular vectors are fixed, so that the bytes of a result
do not depend on LAPACK's choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from palette.adapters.lora import Adapter, LoraModule, module_inner_product, shared_modules
from palette.shapes import Float, Tensor

EPSILON = torch.finfo(torch.float64).eps

SAMPLED_ENTRIES = 1 << 20
"""Entries of a module whose signs are looked at, in whole rows; of a larger one every so many rows are."""


class Truncation(NamedTuple):
    """A ΔW at a smaller rank, with the energy kept and the energy there was."""

    module: LoraModule
    kept: float
    total: float

    @property
    def retained_energy(self) -> float:
        """The share of the energy kept, in [0, 1]; 1 for a null ΔW."""
        return min(1.0, self.kept / self.total) if self.total > 0 else 1.0


class Spectrum(NamedTuple):
    """The singular value decomposition of a ΔW and its numerical rank."""

    left: Float[Tensor, "d_out component"]
    values: Float[Tensor, " component"]
    right: Float[Tensor, "component d_in"]
    rank: int


class ColumnBasis(NamedTuple):
    """An orthonormal basis of a matrix's columns, as columns · transform, and the matrix in that basis."""

    columns: Float[Tensor, "d component"]
    transform: Float[Tensor, "component component"] | None
    core: Float[Tensor, "component component"]

    def times(self, weights: Float[Tensor, "component chosen"]) -> Float[Tensor, "d chosen"]:
        """The basis times ``weights``."""
        return self.columns @ (weights if self.transform is None else self.transform @ weights)


def column_basis(matrix: Float[Tensor, "d component"]) -> ColumnBasis:
    """An orthonormal basis, by Cholesky of the Gram matrix where that is safe, and else by QR.

    The former takes a third of the time, and loses orthogonality with the square of the condition of
    the columns scaled to one length: here at most by 1e-11.
    """
    largest = matrix.abs().amax(dim=0) if matrix.numel() else matrix.new_zeros(matrix.shape[1])
    if len(largest) and float(largest.min()) > 0:
        # To one size first: the square of a tiny column would be rounded, or null.
        unit = matrix / largest
        gram = unit.T @ unit
        lengths = gram.diagonal().sqrt()
        if float(torch.linalg.eigvalsh(gram / torch.outer(lengths, lengths))[0]) > 1e-3:
            core = torch.linalg.cholesky(gram, upper=True)
            identity = torch.eye(len(gram), dtype=gram.dtype)
            inverse = torch.linalg.solve_triangular(core, identity, upper=True)
            return ColumnBasis(unit, inverse, core * largest)
    columns, core = torch.linalg.qr(matrix)
    return ColumnBasis(columns, None, core)


class _Core(NamedTuple):
    """The singular value decomposition of B A in bases of B's and A's own: what its spectrum is made of."""

    outputs: ColumnBasis
    inputs: ColumnBasis
    left: Float[Tensor, "component component"]
    values: Float[Tensor, " component"]
    right: Float[Tensor, "component component"]
    rank: int

    def spectrum(self, count: int | None = None) -> Spectrum:
        """All singular values, and the vectors of the first ``count``."""
        left = self.outputs.times(self.left[:, :count])
        return Spectrum(left, self.values, self.inputs.times(self.right[:count].T).T, self.rank)


def concatenate(modules: Sequence[LoraModule], weights: Sequence[float]) -> LoraModule:
    """The exact weighted sum of ΔW: B = [w₁s₁B₁ | …], A = [A₁; …], in float64; ranks add.

    Null components, and so modules of weight 0, take no rank.
    """
    parts = [
        LoraModule(module.lora_A, module.lora_B, weight * module.scale).folded().trimmed()
        for module, weight in zip(modules, weights, strict=True)
    ]
    return LoraModule(
        torch.cat([part.lora_A for part in parts], dim=0), torch.cat([part.lora_B for part in parts], dim=1)
    )


def truncate(module: LoraModule, rank: int | None = None, share: float = 1.0) -> Truncation:
    """The nearest ΔW of at most ``rank`` (by default the exact rank, which loses nothing).

    Of its components no more are kept than hold the ``share`` of the energy. Factors that are within
    the rank already are given back as they are, less null components.
    """
    module = module.trimmed()
    core = _core_of(module)
    count = _needed(core, rank, share)
    if core.rank == module.rank == count:
        total = energy(core.values)
        return Truncation(module, kept=total, total=total)
    return cut(core.spectrum(count), count)


def factorise(delta: Float[Tensor, "d_out d_in"], rank: int | None = None, share: float = 1.0) -> Truncation:
    """The nearest factors of at most ``rank`` (by default the exact rank) to a dense ΔW."""
    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    tolerance = EPSILON * max(delta.shape) * (float(values[0]) if values.numel() else 0.0)
    return cut(Spectrum(left, values, right, int((values > tolerance).sum())), rank, share)


def spectrum_of_factors(module: LoraModule) -> Spectrum:
    """The singular value decomposition of scale · B A, from the factors alone."""
    return _core_of(module).spectrum()


def _core_of(module: LoraModule) -> _Core:
    """The core of scale · B A, from the factors alone.

    The tolerance of the rank is relative to the factors, not to ΔW: where components cancel, as in
    ΔW − ΔW, what is left is rounding and has rank 0.
    """
    factors = module.folded().trimmed().balanced()
    outputs, inputs = column_basis(factors.lora_B), column_basis(factors.lora_A.T)
    left, values, right = torch.linalg.svd(outputs.core @ inputs.core.T, full_matrices=False)
    size = float(outputs.core.norm()) * float(inputs.core.norm())
    tolerance = EPSILON * max(*factors.shape, factors.rank) * size
    return _Core(outputs, inputs, left, values, right, int((values > tolerance).sum()))


def _needed(spectrum: Spectrum | _Core, rank: int | None, share: float) -> int:
    """The fewest components that hold the ``share`` of the energy, and at most ``rank``."""
    most = spectrum.rank if rank is None else min(rank, spectrum.rank)
    if share >= 1 or not most:
        return most
    cumulative = spectrum.values[: spectrum.rank].square().cumsum(0)
    return min(most, int(torch.searchsorted(cumulative, share * cumulative[-1])) + 1)


def cut(spectrum: Spectrum, rank: int | None = None, share: float = 1.0) -> Truncation:
    """The components ``needed``, each singular value shared evenly between both factors.

    The largest entry of every left singular vector is made positive.
    """
    rank = _needed(spectrum, rank, share)
    left, values, right = spectrum.left[:, :rank], spectrum.values[:rank], spectrum.right[:rank]
    if rank:
        largest = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
        sign = torch.where(largest < 0, -1.0, 1.0).to(left.dtype)
        left, right = left * sign, right * sign.T
    root = values.sqrt()
    module = LoraModule(root[:, None] * right, left * root)
    kept, total = energy(values), energy(spectrum.values[: spectrum.rank])
    return Truncation(module, kept=kept, total=total)


def effective_rank(spectrum: Spectrum) -> float:
    """How many components the energy is spread over: e to the entropy of their shares of it.

    From 1, one component alone, to the rank, all alike; 0 for a null ΔW (Roy and Vetterli 2007, of the
    squared singular values).
    """
    shares = spectrum.values[: spectrum.rank].square()
    if not spectrum.rank:
        return 0.0
    shares = shares / shares.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def energy(values: Float[Tensor, " component"]) -> float:
    """The energy of singular values: the sum of their squares."""
    return float(values.square().sum())


def overlap(first: Adapter, second: Adapter) -> float:
    """The share in [0, 1] of what the smaller adapter reads that the other reads too.

    The mean over shared modules of ‖Q₁ᵀQ₂‖² / min(r₁, r₂), with Q an orthonormal basis of a delta's
    row space; two random ones of rank r in d dimensions share r / d of it.
    """
    shares = []
    for name in shared_modules(first, second):
        spectra = [spectrum_of_factors(adapter.modules[name]) for adapter in (first, second)]
        rows, other_rows = (spectrum.right[: spectrum.rank] for spectrum in spectra)
        if least := min(len(rows), len(other_rows)):
            shares.append(float((rows @ other_rows.T).square().sum()) / least)
    return math.fsum(shares) / len(shares) if shares else 0.0


def sign_conflict(first: Adapter, second: Adapter) -> float:
    """The share in [0, 1] of what both move that one pushes up and the other down.

    Σ over entries of min(|ΔW₁|, |ΔW₂|) where their signs differ, over the same sum wherever. Two random
    adapters have 0.5; it is what TIES elects between (arXiv 2306.01708).
    """
    against, both = [], []
    for name in shared_modules(first, second):
        delta, other = (sampled_rows(adapter.modules[name]) for adapter in (first, second))
        least = torch.minimum(delta.abs(), other.abs())
        both.append(float(least.sum(dtype=torch.float64)))
        against.append(float(least[delta.sign() != other.sign()].sum(dtype=torch.float64)))
    total = math.fsum(both)
    return math.fsum(against) / total if total else 0.0


def sampled_rows(module: LoraModule) -> Float[Tensor, "row d_in"]:
    """The rows of ΔW whose signs are looked at, in float32."""
    d_out, d_in = module.shape
    step = max(1, math.ceil(d_out * d_in / SAMPLED_ENTRIES))
    factors = module.folded(torch.float32)
    return factors.lora_B[::step] @ factors.lora_A


def dominance(first: Adapter, second: Adapter) -> float:
    """The share in [0, 1] of the first in the energy that both have in the modules they share.

    ‖ΔW₁‖² / (‖ΔW₁‖² + ‖ΔW₂‖²); 0.5 where they are equally large, or share nothing.
    """
    names = shared_modules(first, second)
    energies = [
        math.fsum(module_inner_product(adapter.modules[name], adapter.modules[name]) for name in names)
        for adapter in (first, second)
    ]
    return energies[0] / sum(energies) if sum(energies) else 0.5
