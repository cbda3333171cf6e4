"""Merges entry by entry: task vectors made sparse, by magnitude or at random, then a consensus of signs.

A method is a sparsifier and a consensus; where signs are not elected and nothing is divided, the
consensus is the weighted sum. Random masks do not depend on tiles, threads or the order of adapters:
each entry has its own number of a counter-based generator (Philox, Salmon et al., 2011), whose key is
the SHA-256 of the seed, the adapter's key and the module's name, and whose counter is the entry's place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from palette.adapters.lora import LoraModule
from palette.errors import RecipeError
from palette.merging.inputs import Group
from palette.merging.tiles import Tiled, task_vector, weighted
from palette.shapes import Float, Tensor

NEGLIGIBLE = 1e-8
"""A sum of weights nearer to zero than this divides nothing."""

WORDS, BLOCK = 1 << 32, 8
"""How many values a random number of 32 bits takes, and such numbers for each value of the counter."""

Chance = Callable[[Tensor], float | NDArray[np.float64]]
"""The probability that an entry is kept: one for all entries of a tile, or one each."""


def ties(group: Group, *, density: float, trim: str, **vote: str) -> Tiled:
    """The disjoint mean of trimmed, weighted task vectors, in tiles (arXiv 2306.01708, section 4).

    With τᵢ = ΔWᵢ and keepᵢ the ``density`` share of its entries of largest magnitude:

        τ̂ᵢ = keepᵢ ∘ τᵢ,   γ = sgn(Σᵢ wᵢ τ̂ᵢ),   τ = mean of the wᵢ τ̂ᵢ whose sign is γ, entry by entry

    ``trim`` is over the whole adapter, as in the paper (the survey finds its threshold), or tensor by
    tensor, as in PEFT and mergekit. Without a vote, see ``consensus``, it is magnitude pruning,
    τ = Σᵢ wᵢ τ̂ᵢ (arXiv 1506.02626).
    """
    vectors = [task_vector(module) for module in group.modules]
    if density == 1 or group.surveyed is None:
        trimmed = [largest(vector, density) for vector in vectors]
    else:
        trimmed = [above(vector, edge) for vector, edge in zip(vectors, group.surveyed, strict=True)]
    return consensus(trimmed, group.weights, **vote)


def breadcrumbs(group: Group, *, density: float, gamma: float, **vote: str) -> Tiled:
    """The weighted sum of task vectors without their largest and smallest entries (arXiv 2312.06795).

        τ = Σᵢ wᵢ mᵢ ∘ ΔWᵢ,   mᵢ = 0 for the ``gamma`` share of largest magnitude and for the smallest

    The smallest entries fall until the ``density`` share is left; if ``gamma`` takes more than
    1 − density, fewer of the largest do. Each tensor is masked by itself, as in the paper.
    """
    parts = [between(task_vector(module), density, gamma) for module in group.modules]
    return consensus(parts, group.weights, **vote)


def dare(group: Group, *, density: float, rescale: str, seed: int, **vote: str) -> Tiled:
    """The weighted sum, or sign consensus, of randomly thinned task vectors (arXiv 2311.03099, section 3).

        τ = Σᵢ wᵢ mᵢ ∘ ΔWᵢ / density,   mᵢ ~ Bernoulli(density), entry by entry

    The expectation is the weighted sum. ``rescale`` l1 restores each module's L1 norm instead, as
    mergekit does. With a vote, see ``consensus``, DARE takes the place of trimming in TIES.
    """
    return consensus(thinned(group, seed, density, lambda _: density, rescale), group.weights, **vote)


def della(group: Group, *, density: float, epsilon: float, rescale: str, seed: int, **vote: str) -> Tiled:
    """The sign consensus of task vectors thinned by magnitude, in tiles (arXiv 2406.11617, section 3).

        qᵢ = density + epsilon (2 rankᵢ / (d_in − 1) − 1),   τ̂ᵢ = mᵢ ∘ ΔWᵢ / qᵢ,   mᵢ ~ Bernoulli(qᵢ)

    rank 0 is the smallest magnitude of a row, so that qᵢ, the chance of an entry to be kept, runs from
    density − epsilon to density + epsilon. Then the agreeing entries are fused; see ``consensus``.

    Raises:
        RecipeError: if a chance would not lie in (0, 1].
    """
    if density - epsilon <= 0 or density + epsilon > 1:
        raise RecipeError(
            "della's density − epsilon and density + epsilon must lie in (0, 1]",
            got=f"density {density:g} and epsilon {epsilon:g}",
            remedy="take a smaller epsilon",
        )
    chance = partial(chances, density=density, epsilon=epsilon)
    return consensus(thinned(group, seed, density, chance, rescale), group.weights, **vote)


def survey(modules: Mapping[str, LoraModule], *, density: float, trim: str, **_: object) -> float | None:
    """The magnitude that trims a whole adapter, or nothing where each tensor is trimmed by itself."""
    if trim != "global":
        return None
    return threshold([task_vector(modules[name]) for name in sorted(modules)], density)


def consensus(
    parts: Sequence[Tiled], weights: Sequence[float], elect: str = "none", divide: str = "none"
) -> Tiled:
    """The disjoint merge of sparse task vectors τ̂ᵢ (arXiv 2306.01708, section 4).

        γ = sgn(Σᵢ vᵢ),   τ = Σ_{i: vᵢ γ > 0} wᵢ τ̂ᵢ / divisor,   entry by entry

    The votes vᵢ are wᵢ τ̂ᵢ (``elect`` after weighting, as mergekit does), or τ̂ᵢ (before, as PEFT
    does); with none every entry agrees. The divisor is the number of agreeing entries that are not 0
    (``count``), the sum of their weights (``weight``), or 1 (``none``).
    """
    if elect == "none" and divide == "none":
        return weighted(parts, weights)

    def rows(start: int, stop: int) -> Tensor:
        return disjoint([part.rows(start, stop) for part in parts], weights, elect, divide)

    return Tiled(parts[0].shape, parts[0].dtype, rows)


def disjoint(
    tiles: Sequence[Float[Tensor, "row d_in"]], weights: Sequence[float], elect: str, divide: str
) -> Float[Tensor, "row d_in"]:
    """The disjoint merge of one tile of each task vector, which it overwrites.

    The elected sign is that of the sum of the votes, 0 where they cancel; an entry that agrees is positive
    once multiplied by it.
    """
    merged, divisor = torch.zeros_like(tiles[0]), torch.zeros_like(tiles[0])
    factors = [1.0 if elect == "after" else weight for weight in weights]
    if elect == "after":
        for weight, tile in zip(weights, tiles, strict=True):
            if weight != 1:
                tile.mul_(weight)
    sign = sum(tiles[1:], tiles[0]).sign() if elect != "none" else None
    for weight, factor, vote in zip(weights, factors, tiles, strict=True):
        if sign is not None:
            vote.mul_(sign).clamp_(min=0.0)
        merged.add_(vote, alpha=factor)
        if divide != "none":
            divisor.add_(vote.ne_(0), alpha=weight if divide == "weight" else 1.0)
    if sign is not None:
        merged.mul_(sign)
    if divide == "none":
        return merged
    if divide == "count":
        return merged.div_(divisor.clamp_(min=1))
    return merged.div_(divisor.masked_fill_(divisor.abs() < NEGLIGIBLE, 1.0))


def kth_largest(parts: Sequence[Tiled], count: int) -> float:
    """The ``count``-th largest magnitude among all entries of the parts, exact.

    A radix selection: magnitudes are ordered as the bits of their floats are, so a histogram of
    16 bits a pass, from the highest down, fixes the value to its last bit.
    """
    wide = any(part.dtype == torch.float64 for part in parts)
    dtype, integer, width = (torch.float64, torch.int64, 64) if wide else (torch.float32, torch.int32, 32)
    prefix = 0
    for shift in range(width - 16, -1, -16):
        histogram = torch.zeros(1 << 16, dtype=torch.int64)
        for part in parts:
            for _, tile in part.tiles():
                bits = tile.to(dtype).abs().view(integer).flatten()
                if shift + 16 < width:
                    bits = bits[(bits >> (shift + 16)) == prefix]
                digits = (bits >> shift) & 0xFFFF if shift + 16 < width else bits >> shift
                histogram += torch.bincount(digits, minlength=1 << 16)
        from_above = histogram.flip(0).cumsum(0)
        step = int(torch.searchsorted(from_above, count))
        count -= int(from_above[step - 1]) if step else 0
        prefix = prefix << 16 | (0xFFFF - step)
    return float(torch.tensor(prefix, dtype=integer).view(dtype))


def threshold(parts: Sequence[Tiled], density: float) -> float:
    """The smallest magnitude kept when the ``density`` share of all entries is, and at least one.

    The count of entries is rounded down, as PEFT and mergekit do.
    """
    entries = sum(math.prod(part.shape) for part in parts)
    return kth_largest(parts, max(1, int(density * entries)))


def largest(part: Tiled, density: float) -> Tiled:
    """The ``density`` share of entries of largest magnitude, the rest set to 0."""
    if density == 1 or not math.prod(part.shape):
        return part
    return above(part, threshold([part], density))


def above(part: Tiled, smallest: float) -> Tiled:
    """The entries of at least this magnitude, the rest set to 0.

    All entries of exactly this magnitude are kept, so that no order of entries decides.
    """
    edge = torch.tensor(smallest, dtype=part.dtype)
    bound = float(edge)
    if bound >= smallest:
        bound = float(torch.nextafter(edge, edge.new_tensor(-math.inf)))
    return mapped(part, lambda tile, _: torch.nn.functional.hardshrink(tile, bound))


def between(part: Tiled, density: float, gamma: float) -> Tiled:
    """The entries that are neither among the largest nor among the smallest."""
    entries = math.prod(part.shape)
    kept = max(1, int(density * entries))
    dropped = min(int(gamma * entries), entries - kept)
    if kept + dropped < entries:
        part = above(part, kth_largest([part], kept + dropped))
    if not dropped:
        return part
    bound = kth_largest([part], dropped)
    return mapped(part, lambda tile, _: torch.where(tile.abs() < bound, tile, 0.0))


def random_words(place: str, start: int, stop: int, d_in: int) -> NDArray[np.uint32]:
    """Numbers uniform in [0, 2³²) for these rows; ``place`` says of which seed, adapter and module."""
    digest = hashlib.sha256(place.encode()).digest()
    blocks = -(-d_in // BLOCK)
    generator = np.random.Philox(
        key=np.frombuffer(digest[:16], dtype="<u8"), counter=np.array([start * blocks, 0, 0, 0])
    )
    words = generator.random_raw((stop - start) * blocks * BLOCK // 2).astype("<u8", copy=False)
    return words.view("<u4").reshape(stop - start, blocks * BLOCK)[:, :d_in]


def thinned(group: Group, seed: int, density: float, chance: Chance, rescale: str) -> list[Tiled]:
    """The task vectors, each with the entries that its own draw keeps; all of them at density 1."""
    vectors = [task_vector(module) for module in group.modules]
    if density == 1:
        return vectors
    keys = group.keys or [str(place) for place in range(len(vectors))]
    places = [f"{seed}\0{key}\0{group.name}" for key in keys]
    return [dropped(vector, place, chance, rescale) for vector, place in zip(vectors, places, strict=True)]


def dropped(vector: Tiled, place: str, chance: Chance, rescale: str) -> Tiled:
    """The entries kept by the draw of a place, each with its ``chance``, scaled to make up for the others.

    ``rescale`` is l1 (the L1 norm of the whole module is restored), none, or else each kept entry is
    divided by its chance, which keeps the expectation.
    """

    def thin(tile: Tensor, start: int) -> Tensor:
        share, numbers = chance(tile), random_words(place, start, start + len(tile), vector.shape[1])
        bound = min(WORDS - 1, round(share * WORDS)) if isinstance(share, float) else share * WORDS
        tile = tile * torch.from_numpy(numbers < bound)
        if rescale in ("l1", "none"):
            return tile
        return tile.div_(share if isinstance(share, float) else torch.from_numpy(share))

    masked = mapped(vector, thin)
    if rescale != "l1":
        return masked
    left = absolute_sum(masked)
    return weighted([masked], [absolute_sum(vector) / left if left else 1.0])


def chances(tile: Float[Tensor, "row d_in"], density: float, epsilon: float) -> NDArray[np.float64]:
    """The chance of every entry to be kept, by the rank of its magnitude in its row."""
    last = tile.shape[1] - 1
    order = np.argsort(tile.abs().numpy(), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(last + 1)[None], axis=1)
    ladder = density + epsilon * (2 * np.arange(last + 1) / max(1, last) - 1)
    return ladder[ranks]


def absolute_sum(vector: Tiled) -> float:
    """The L1 norm of all entries."""
    return math.fsum(float(tile.abs().sum(dtype=torch.float64)) for _, tile in vector.tiles())


def mapped(part: Tiled, function: Callable[[Tensor, int], Tensor]) -> Tiled:
    """Each tile as the function gives it, from its rows and the number of the first."""
    return Tiled(part.shape, part.dtype, lambda start, stop: function(part.rows(start, stop), start))
