"""Tiles, and factors from them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from palette.adapters.factorisation import Truncation, factorise
from palette.adapters.lora import Adapter, LoraModule
from palette.merging import tiles
from palette.merging.inputs import Group
from palette.merging.methods import merge_method
from palette.merging.tiles import Tiled, factors, randomised, task_vector, weighted

Maker = Callable[..., Adapter]


def large(seed: int, shape: tuple[int, int] = (600, 520), rank: int = 8) -> LoraModule:
    generator = torch.Generator().manual_seed(seed)
    return LoraModule(
        torch.randn(rank, shape[1], generator=generator), torch.randn(shape[0], rank, generator=generator)
    )


def test_small_modules_are_computed_in_float64_and_large_ones_in_float32() -> None:
    assert task_vector(large(1, (512, 512))).dtype == torch.float64
    assert task_vector(large(1)).dtype == torch.float32


def test_tiles_cover_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = large(1)
    monkeypatch.setattr(tiles, "TILE", 7 * 520)
    covered = [rows for rows, _ in task_vector(module).tiles()]
    assert (covered[0].start, covered[-1].stop) == (0, 600)
    assert all(one.stop == two.start for one, two in pairwise(covered))
    assert torch.allclose(task_vector(module).dense().double(), module.delta(), atol=1e-4)


def test_a_large_merge_holds_no_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor that the functions see is a tile: neither ΔW nor the merge is ever whole."""

    def forbidden(_: object) -> torch.Tensor:
        raise AssertionError("a dense matrix was formed")

    monkeypatch.setattr(LoraModule, "delta", forbidden)
    monkeypatch.setattr(Tiled, "dense", forbidden)
    group = Group([large(1), large(2)], [1.0, 0.5], "x", ["a", "b"])
    for name in ("ties", "magnitude", "breadcrumbs", "dare", "dare_ties", "della"):
        row = merge_method(name)
        merged = row.load()(group, **row.settled({}))
        assert isinstance(merged, Tiled)
        assert factors(merged, 4).module.rank == 4
    monkeypatch.undo()
    monkeypatch.setattr(LoraModule, "delta", forbidden)
    for name in ("weighted_sum", "knots", "core_space", "compress_then_merge", "tsv", "pico", "svc"):
        row = merge_method(name)
        assert isinstance(row.load()(group, **row.settled({})), LoraModule)


def test_dense_ties_in_one_piece_is_the_tiled_one() -> None:
    """The whole in float32, with torch's own kthvalue, against tiles of a few rows."""
    modules = [large(1), large(2)]
    row = merge_method("ties")
    merged = row.load()(Group(modules, [1.0, 0.5]), **row.settled({"density": 0.2})).dense()
    trimmed = []
    for module, weight in zip(modules, [1.0, 0.5], strict=True):
        vector = task_vector(module).dense()
        count = int(0.2 * vector.numel())
        smallest = vector.abs().flatten().kthvalue(vector.numel() - count + 1).values
        trimmed.append(weight * torch.where(vector.abs() >= smallest, vector, 0.0))
    stack = torch.stack(trimmed)
    agrees = (stack * stack.sum(dim=0).sign()) > 0
    expected = (stack * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
    assert torch.equal(merged, expected)


@pytest.mark.parametrize("method", ["ties", "dare", "breadcrumbs"])
def test_the_range_finder_is_nearly_the_best(method: str) -> None:
    row = merge_method(method)
    merged = row.load()(Group([large(1), large(2)], [1.0, 1.0]), **row.settled({}))
    whole = merged.dense().double()
    best, found = factorise(whole, 8), randomised(merged, 8)
    least = float((whole - best.module.delta()).norm())
    error = float((whole - found.module.delta()).norm())
    assert least <= error <= 1.0005 * least
    assert found.retained_energy == pytest.approx(1 - (error / float(whole.norm())) ** 2, abs=1e-5)
    assert found.retained_energy == pytest.approx(best.retained_energy, abs=1e-3)


def test_fewer_iterations_are_worse() -> None:
    row = merge_method("ties")
    merged = row.load()(Group([large(1), large(2)], [1.0, 1.0]), **row.settled({}))
    kept = [randomised(merged, 8, iterations).kept for iterations in (1, 2, 4)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_the_range_finder_is_deterministic_and_exact_on_low_rank() -> None:
    module = large(3, rank=5)
    vector = task_vector(module)
    first, second = randomised(vector, 12), randomised(vector, 12)
    assert torch.equal(first.module.lora_A, second.module.lora_A)
    assert torch.equal(first.module.lora_B, second.module.lora_B)
    assert first.retained_energy == pytest.approx(1.0, abs=1e-6)
    assert (first.module.delta() - module.delta()).norm() <= 1e-5 * module.delta().norm()


def test_nothing_has_no_factors() -> None:
    null = weighted([task_vector(large(1))], [0.0])
    truncation = randomised(null, 4)
    assert (truncation.module.rank, truncation.retained_energy) == (0, 1.0)


def test_a_large_module_is_found_and_a_small_or_exact_one_is_decomposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def recorded(merged: Tiled, rank: int) -> Truncation:
        asked.append((merged.shape, rank))
        return randomised(merged, rank)

    monkeypatch.setattr(tiles, "randomised", recorded)
    factors(task_vector(large(1)), 4)
    factors(task_vector(large(1, (30, 20))), 4)
    factors(task_vector(large(1, (4, 90000), 2)), 4)
    factors(large(1), 4)
    assert asked == [((600, 520), 4)]
