"""The laws of factorisation: exact sums, best truncations, honest energies, fixed signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters import factorisation
from palette.adapters.factorisation import (
    Spectrum,
    Truncation,
    column_basis,
    concatenate,
    cut,
    dominance,
    factorise,
    overlap,
    sign_conflict,
    spectrum_of_factors,
    truncate,
)
from palette.adapters.lora import Adapter, LoraModule

Maker = Callable[..., LoraModule]
seeds = st.integers(0, 2**32)
laws = settings(max_examples=25, deadline=None)


@laws
@given(seed=seeds, weight=st.floats(-3, 3), rank=st.integers(1, 6))
def test_concatenation_is_the_weighted_sum(random_module: Maker, seed: int, weight: float, rank: int) -> None:
    first, second = random_module(seed, rank), random_module(seed + 1, 3, scale=2.0)
    summed = concatenate([first, second], [weight, 1.0])
    expected = weight * first.delta() + second.delta()
    assert torch.allclose(summed.delta(), expected, rtol=1e-12, atol=1e-12)
    assert summed.rank == (rank if weight else 0) + 3


@laws
@given(seed=seeds, rank=st.integers(0, 12))
def test_truncation_is_the_best_of_its_rank(random_module: Maker, seed: int, rank: int) -> None:
    module = random_module(seed, 9)
    result = truncate(module, rank)
    left, values, right = torch.linalg.svd(module.delta(), full_matrices=False)
    best = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
    assert torch.allclose(result.module.delta(), best, atol=1e-10 * float(values[0]))
    assert result.module.rank == min(rank, 9)
    share = float(values[:rank].square().sum() / values.square().sum())
    assert result.retained_energy == pytest.approx(share, abs=1e-12)
    assert 0.0 <= result.retained_energy <= 1.0


@laws
@given(seed=seeds, rank=st.integers(1, 10))
def test_retained_energy_never_falls_with_rank(random_module: Maker, seed: int, rank: int) -> None:
    module = random_module(seed, 10)
    low, high = truncate(module, rank - 1), truncate(module, rank)
    assert low.retained_energy <= high.retained_energy


def test_without_a_rank_nothing_is_lost_and_full_factors_are_kept(random_module: Maker) -> None:
    module = random_module(5, 4)
    assert torch.equal(truncate(module).module.lora_A, module.lora_A)
    assert truncate(module).retained_energy == 1.0
    padded = LoraModule(
        torch.nn.functional.pad(module.lora_A, (0, 0, 0, 2)),
        torch.nn.functional.pad(module.lora_B, (0, 2)),
        module.scale,
    )
    assert torch.equal(truncate(padded).module.lora_A, module.lora_A)


def test_shared_factors_sum_at_their_own_rank(random_module: Maker) -> None:
    first = random_module(1, 4)
    second = LoraModule(first.lora_A, random_module(2, 4).lora_B, 0.3)
    summed = concatenate([first, second], [1.0, 1.0])
    assert summed.rank == 8
    assert spectrum_of_factors(summed).rank == 4
    result = truncate(summed)
    assert (result.module.rank, result.retained_energy) == (4, pytest.approx(1.0, abs=1e-12))
    assert torch.allclose(result.module.delta(), summed.delta(), atol=1e-12)


def test_what_cancels_has_rank_0(random_module: Maker) -> None:
    module = random_module(3, 5, scale=1.7)
    nothing = concatenate([module, module], [1.0, -1.0])
    assert spectrum_of_factors(nothing).rank == 0
    result = truncate(nothing)
    assert (result.module.rank, result.retained_energy) == (0, 1.0)
    assert not result.module.delta().any()


def test_skewed_components_are_not_taken_for_rounding() -> None:
    down = torch.tensor([[1e-9, 0.0, 0.0], [0.0, 1e9, 0.0]])
    up = torch.tensor([[1e9, 0.0], [0.0, 1e-9], [0.0, 0.0]])
    assert spectrum_of_factors(LoraModule(down, up)).rank == 2


def test_more_components_than_dimensions(random_module: Maker) -> None:
    module = random_module(4, rank=20, d_in=6, d_out=5)
    result = truncate(module)
    assert result.module.rank == spectrum_of_factors(module).rank == 5
    assert torch.allclose(result.module.delta(), module.delta(), atol=1e-11)


@laws
@given(seed=seeds, rank=st.integers(1, 6))
def test_dense_and_factored_factorisations_agree(random_module: Maker, seed: int, rank: int) -> None:
    module = random_module(seed, 6)
    dense, factored = factorise(module.delta(), rank), truncate(module, rank)
    assert torch.allclose(dense.module.delta(), factored.module.delta(), atol=1e-9)
    assert dense.retained_energy == pytest.approx(factored.retained_energy, abs=1e-12)
    assert factorise(module.delta()).module.rank == 6


def test_a_null_delta_factorises_to_rank_0() -> None:
    result = factorise(torch.zeros(3, 4))
    assert (result.module.rank, result.retained_energy) == (0, 1.0)


@laws
@given(seed=seeds, flips=st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4))
def test_signs_of_singular_vectors_change_no_bit(seed: int, flips: list[float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    sign = torch.tensor(flips, dtype=torch.float64)
    one = cut(Spectrum(left, values, right, 4), 3).module
    other = cut(Spectrum(left * sign, values, right * sign[:, None], 4), 3).module
    assert torch.equal(one.lora_A, other.lora_A)
    assert torch.equal(one.lora_B, other.lora_B)
    assert bool((one.lora_B.gather(0, one.lora_B.abs().argmax(0, keepdim=True)) > 0).all())


def test_energy_shares_stay_within_one(random_module: Maker) -> None:
    assert Truncation(random_module(0), kept=1.0 + 1e-15, total=1.0).retained_energy == 1.0


def test_random_adapters_do_not_compress(random_module: Maker) -> None:
    """METHODS.md, section 8: 8 random rank-16 adapters at rank 16 keep 18 % of the energy."""
    parts = [random_module(seed, 16, 4096, 4096) for seed in range(8)]
    kept = truncate(concatenate(parts, [1.0] * 8), 16).retained_energy
    assert kept == pytest.approx(0.18, abs=0.005)


def test_overlap_is_of_what_is_read_and_blind_to_the_factors(random_module: Maker) -> None:
    one, other = random_module(1, 2), random_module(2, 3)
    a, b = Adapter({"x": one}), Adapter({"x": other})
    assert overlap(a, a) == pytest.approx(1.0)
    assert 0 < overlap(a, b) < 1
    assert overlap(a, b) == pytest.approx(overlap(b, a))
    turned = LoraModule(torch.tensor([[2.0, 1.0], [0.0, 3.0]]).to(one.lora_A) @ one.lora_A, one.lora_B)
    assert overlap(Adapter({"x": turned}), b) == pytest.approx(overlap(a, b), rel=1e-5)
    width = one.shape[1]
    apart = (LoraModule(torch.eye(width)[rows], one.lora_B.float()) for rows in ([0, 1], [2, 3]))
    assert overlap(*(Adapter({"x": each}) for each in apart)) == pytest.approx(0.0, abs=1e-12)
    assert overlap(a, Adapter({"y": other})) == 0.0


@pytest.mark.parametrize("size", [1e-170, 1e-30, 1e150])
def test_columns_of_any_size_have_a_basis(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    matrix[:, ::2] *= size
    basis = column_basis(matrix)
    columns = basis.times(torch.eye(6, dtype=torch.float64))
    assert torch.allclose(columns.T @ columns, torch.eye(6, dtype=torch.float64), atol=1e-11)
    assert torch.allclose(columns @ basis.core / matrix, torch.ones_like(matrix), atol=1e-6)


# Interference: what two deltas push apart, and which outweighs the other.


def adapter_of(delta: list[list[float]], name: str = "a") -> Adapter:
    dense = torch.tensor(delta)
    return Adapter({name: LoraModule(dense, torch.eye(len(dense)))})


def test_known_deltas() -> None:
    first, second = adapter_of([[1.0, 2.0], [0.0, -3.0]]), adapter_of([[1.0, -1.0], [5.0, -3.0]])
    # What both move: 1, 1, 0 and 3, of which the second is pushed apart.
    assert sign_conflict(first, second) == pytest.approx(1 / 5)
    assert dominance(first, second) == pytest.approx(14 / 50)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_laws(random_module: Maker, seed: int) -> None:
    one, other = Adapter({"a": random_module(seed)}), Adapter({"a": random_module(seed + 1)})
    minus = Adapter({"a": replace(one.modules["a"], lora_B=-one.modules["a"].lora_B)})
    assert sign_conflict(one, other) == pytest.approx(sign_conflict(other, one), abs=1e-9)
    assert (sign_conflict(one, one), sign_conflict(one, minus)) == (0.0, 1.0)
    assert dominance(one, other) + dominance(other, one) == pytest.approx(1.0)
    assert dominance(one, minus) == pytest.approx(0.5)


def test_what_shares_nothing_does_not_interfere(random_module: Maker) -> None:
    one, other = Adapter({"a": random_module(1)}), Adapter({"b": random_module(2)})
    assert (sign_conflict(one, other), dominance(one, other)) == (0.0, 0.5)


def test_a_large_module_is_sampled_by_rows(random_module: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Adapter({"a": random_module(seed, 4, 64, 400)}) for seed in (1, 2))
    whole = sign_conflict(one, other)
    monkeypatch.setattr(factorisation, "SAMPLED_ENTRIES", 64 * 100)
    assert factorisation.sampled_rows(one.modules["a"]).shape == (100, 64)
    assert sign_conflict(one, other) == pytest.approx(whole, abs=0.05)
