"""A merged ΔW that is never held: its rows are computed tile by tile, and factorised from the tiles.

Tiles are float64 for modules of at most 512 × 512 entries and float32 above, where the rounding of
float32 (about 1e-7 of an entry) is far below what a rank keeps. An entry is the same product of the
same factors in every pass, so that a threshold found in one pass holds in the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from palette.adapters.factorisation import Spectrum, Truncation, cut, energy, factorise, truncate
from palette.adapters.lora import LoraModule
from palette.shapes import Float, Tensor

SMALL = 512 * 512
"""Entries up to which a module is computed in float64, and factorised whole."""

TILE = 1 << 17
"""Entries of a tile: few enough for the caches of a core to hold what is computed from them."""

OVERSAMPLING, FIRST, ITERATIONS, SEED = 16, 16, 4, 0
"""Of the range finder: columns beyond the rank, the rank first tried for a share, passes, and the draw."""


@dataclass(frozen=True, eq=False)
class Tiled:
    """A matrix of ``shape`` given by ``rows(start, stop)``: those rows, in ``dtype``.

    The rows are made anew at each call, so that whoever asks may overwrite them.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    rows: Callable[[int, int], Float[Tensor, "row d_in"]]

    def tiles(self) -> Iterator[tuple[slice, Float[Tensor, "row d_in"]]]:
        """The tiles from the first row to the last, each with the rows it covers."""
        d_out, d_in = self.shape
        height = max(1, TILE // max(1, d_in))
        for start in range(0, d_out, height):
            stop = min(start + height, d_out)
            yield slice(start, stop), self.rows(start, stop)

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """The whole matrix."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        for rows, tile in self.tiles():
            whole[rows] = tile
        return whole


def tiled(matrix: Float[Tensor, "d_out d_in"]) -> Tiled:
    """A matrix that is held whole, as tiles."""
    height, width = matrix.shape
    return Tiled((height, width), matrix.dtype, lambda start, stop: matrix[start:stop].clone())


def task_vector(module: LoraModule) -> Tiled:
    """The ΔW of one module, as the tiles B_t A."""
    d_out, d_in = module.shape
    dtype = torch.float64 if d_out * d_in <= SMALL else torch.float32
    factors = module.folded(dtype)

    def rows(start: int, stop: int) -> Tensor:
        return factors.lora_B[start:stop] @ factors.lora_A

    return Tiled(module.shape, dtype, rows)


def weighted(parts: Sequence[Tiled], weights: Sequence[float]) -> Tiled:
    """The sum Σᵢ wᵢ Pᵢ, tile by tile."""

    def rows(start: int, stop: int) -> Tensor:
        total = weights[0] * parts[0].rows(start, stop)
        for weight, part in zip(weights[1:], parts[1:], strict=True):
            total.add_(part.rows(start, stop), alpha=weight)
        return total

    return Tiled(parts[0].shape, parts[0].dtype, rows)


def factors(merged: LoraModule | Tiled, rank: int | None = None, share: float = 1.0) -> Truncation:
    """A method's merged ΔW at no more than ``rank``, by default its exact rank.

    Of its components no more are kept than hold the ``share`` of the energy. Factors are truncated
    exactly. A tiled ΔW is decomposed whole if it is small or its exact rank is asked for, and else by
    the range finder (block Krylov spaces, Musco and Musco); for a share, at twice the rank until it is held.
    """
    if isinstance(merged, LoraModule):
        return truncate(merged, rank, share)
    d_out, d_in = merged.shape
    most = min(merged.shape) if rank is None else min(rank, *merged.shape)
    tried = most if share >= 1 else min(most, FIRST)
    while d_out * d_in > SMALL and tried + OVERSAMPLING < min(merged.shape):
        found = randomised(merged, tried)
        if share < 1 and found.retained_energy > share:
            fewest = truncate(found.module, share=share * found.total / found.kept)
            return fewest._replace(total=found.total)
        if tried == most or found.retained_energy >= share:
            return found
        tried = min(most, 2 * tried)
    return factorise(merged.dense(), rank, share)


def randomised(merged: Tiled, rank: int, iterations: int = ITERATIONS) -> Truncation:
    """Nearly the best factors of ``rank``, and the share of energy they keep (arXiv 1504.05477).

        K ← orth[(MᵀM)Ω, (MᵀM)²Ω, …],   M ≈ (M K) Kᵀ,   truncated by the singular values of M K

    Ω is Gaussian, of a fixed seed. Each power is one pass, Σ_t M_tᵀ(M_t V), so that every tile is
    computed once a pass and none is kept. The blocks of all passes span the basis, not the last one
    alone: the spectra of trimmed deltas are flat, and powers alone part their components slowly.
    """
    generator = torch.Generator().manual_seed(SEED)
    d_out, d_in = merged.shape
    block = torch.randn(d_in, rank + OVERSAMPLING, generator=generator, dtype=merged.dtype)
    blocks = []
    for _ in range(iterations):
        block = torch.linalg.qr(block).Q
        image = torch.zeros_like(block)
        for _, tile in merged.tiles():
            image.addmm_(tile.T, tile @ block)
        block = image
        blocks.append(torch.linalg.qr(block.double()).Q)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)[:, : min(merged.shape)]).Q
    coordinates = torch.empty(d_out, basis.shape[1], dtype=torch.float64)
    squares = []
    narrow = basis.to(merged.dtype)
    for rows, tile in merged.tiles():
        coordinates[rows] = (tile @ narrow).double()
        squares.append(float(torch.linalg.vector_norm(tile, dtype=torch.float64)) ** 2)
    left, values, right = torch.linalg.svd(coordinates, full_matrices=False)
    tolerance = torch.finfo(torch.float64).eps * max(coordinates.shape) * float(values[0])
    alive = int((values > tolerance).sum())
    truncation = cut(Spectrum(left, values, right @ basis.T, alive), rank)
    return Truncation(truncation.module, energy(values[: min(rank, alive)]), math.fsum(squares))
