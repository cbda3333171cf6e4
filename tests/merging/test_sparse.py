"""TIES against its definition, entry by entry; the law of random masks, and what they do not depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.errors import RecipeError
from palette.merging import tiles
from palette.merging.combining import combine
from palette.merging.inputs import Group, MergeInput
from palette.merging.methods import merge_method
from palette.merging.sparse import above, kth_largest, random_words, survey, threshold
from palette.merging.tiles import Tiled, task_vector

Maker = Callable[..., Adapter]


def held(matrix: torch.Tensor) -> Tiled:
    return Tiled(tuple(matrix.shape), matrix.dtype, lambda start, stop: matrix[start:stop])


def of(*rows: list[float]) -> LoraModule:
    """A module whose ΔW is the matrix of these rows."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return LoraModule(matrix, torch.eye(len(rows), dtype=torch.float64))


def ties(modules: list[LoraModule], weights: list[float], **options: object) -> torch.Tensor:
    return merge("ties", Group(modules, weights), **options)


def test_a_worked_example() -> None:
    first = of([4.0, -3.0, 0.1, 2.0])
    second = of([-1.0, -5.0, 6.0, 0.2])
    merged = ties([first, second], [1.0, 1.0], density=0.5)
    assert merged.tolist() == [[4.0, -4.0, 6.0, 0.0]]


def test_signs_are_elected_after_weighting() -> None:
    first, second = of([3.0]), of([-2.0])
    assert ties([first, second], [1.0, 1.0], density=1.0).tolist() == [[3.0]]
    assert ties([first, second], [1.0, 2.0], density=1.0).tolist() == [[-4.0]]


def test_equal_masses_elect_nothing() -> None:
    assert ties([of([3.0]), of([-3.0])], [1.0, 1.0], density=1.0).tolist() == [[0.0]]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    density=st.floats(0.05, 1.0),
    weights=st.lists(st.floats(0.1, 2.0), min_size=1, max_size=4),
)
def test_it_is_the_papers_definition(
    random_adapter: Maker, seed: int, density: float, weights: list[float]
) -> None:
    shapes = {"x": (4, 5)}
    modules = [random_adapter(seed + n, 2, shapes).modules["x"] for n in range(len(weights))]
    merged = ties(modules, weights, density=density)
    kept = []
    for module, weight in zip(modules, weights, strict=True):
        flat = (weight * module.delta()).flatten().tolist()
        largest = sorted(range(20), key=lambda entry: -abs(flat[entry]))[: max(1, int(20 * density))]
        kept.append([flat[entry] if entry in largest else 0.0 for entry in range(20)])
    for entry in range(20):
        values = [row[entry] for row in kept]
        agreeing = [value for value in values if value * sum(values) > 0]
        expected = sum(agreeing) / len(agreeing) if agreeing else 0.0
        assert float(merged.flatten()[entry]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_trimming_keeps_a_share_at_least_one_and_all_that_are_equal() -> None:
    module = of([3.0, -2.0], [1.0, -2.0])

    def trim(density: float) -> list[list[float]]:
        vector = task_vector(module)
        return above(vector, threshold([vector], density)).dense().tolist()

    assert trim(1.0) == module.delta().tolist()
    assert trim(0.01) == [[3.0, 0.0], [0.0, 0.0]]
    assert trim(0.5) == [[3.0, -2.0], [0.0, -2.0]]


def test_a_threshold_between_two_floats_keeps_what_is_above_it() -> None:
    """The threshold of a whole adapter may be that of a module of another precision."""
    values = torch.tensor([[1.0, 1.0 + 2**-23, 1.0 + 2**-22]])
    part = Tiled((1, 3), torch.float32, lambda start, stop: values[start:stop])
    for smallest, kept in ((1.0, 3), (1.0 + 2**-30, 2), (1.0 + 2**-23 - 2**-30, 2), (1.0 + 2**-23, 2)):
        assert int((above(part, smallest).dense() != 0).sum()) == kept


def test_global_trimming_takes_from_where_the_large_entries_are() -> None:
    small, big = of([1.0, 2.0], [3.0, 4.0]), of([10.0, 20.0], [30.0, 40.0])
    adapter = Adapter({"big": big, "small": small})
    options = {"density": 0.5, "trim": "global"}
    merged = combine([MergeInput(adapter)], "ties", options=options)[0]
    assert merged.modules["small"].rank == 0
    assert torch.allclose(merged.modules["big"].delta(), big.delta())
    each = combine([MergeInput(adapter)], "ties", options={"density": 0.5})[0]
    assert int((each.modules["small"].delta().abs() > 1e-9).sum()) == 2
    assert survey(adapter.modules, density=0.5, trim="global") == 10.0
    assert survey(adapter.modules, density=0.5, trim="tensor") is None


def ones(d_out: int, d_in: int) -> LoraModule:
    return LoraModule(torch.ones(1, d_in, dtype=torch.float64), torch.ones(d_out, 1, dtype=torch.float64))


def merge(name: str, group: Group, **given: object) -> torch.Tensor:
    row = merge_method(name)
    return row.load()(group, **row.settled(given)).dense()


@pytest.mark.parametrize("d_in", [1, 7, 8, 13])
def test_a_number_belongs_to_its_entry(d_in: int) -> None:
    whole = random_words("place", 0, 10, d_in)
    assert whole.shape == (10, d_in)
    for start, stop in ((0, 1), (3, 7), (9, 10)):
        assert np.array_equal(random_words("place", start, stop, d_in), whole[start:stop])


def test_seed_adapter_and_module_each_draw_anew() -> None:
    numbers = [
        random_words(place, 0, 20, 20) for place in ("0\0a\0x", "1\0a\0x", "0\0b\0x", "0\0a\0y", "0\0ax\0")
    ]
    for place, one in enumerate(numbers):
        for other in numbers[place + 1 :]:
            assert (one == other).mean() < 0.05


def test_numbers_are_uniform_and_independent() -> None:
    numbers = random_words("0\0a\0x", 0, 400, 401) / 2.0**32
    assert numbers.mean() == pytest.approx(0.5, abs=0.005)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.002)
    assert np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1] == pytest.approx(0, abs=0.01)
    assert np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_its_share_and_the_expectation(density: float) -> None:
    merged = merge("dare", Group([ones(300, 300)], [1.0], "x", ["a"]), density=density)
    kept = float((merged != 0).double().mean())
    assert kept == pytest.approx(density, abs=0.008)
    assert torch.all((merged == 0) | torch.isclose(merged, torch.tensor(1 / density).double()))


def test_the_l1_norm_is_restored_and_nothing_may_be() -> None:
    group = Group([ones(50, 60)], [1.0], "x", ["a"])
    assert float(merge("dare", group, rescale="l1").sum()) == pytest.approx(3000)
    assert set(merge("dare", group, rescale="none").unique().tolist()) == {0.0, 1.0}


def test_della_keeps_large_entries_more_often() -> None:
    row = torch.linspace(-1, 1, 201, dtype=torch.float64)[None]
    module = LoraModule(row, torch.ones(4000, 1, dtype=torch.float64))
    group = Group([module], [1.0], "x", ["a"])
    merged = merge("della", group, density=0.5, epsilon=0.3, rescale="none", elect="none", divide="none")
    kept = (merged != 0).double().mean(dim=0)
    assert float(kept[0]) == pytest.approx(0.8, abs=0.04)
    assert float(kept[101]) == pytest.approx(0.2, abs=0.04)
    restored = merge("della", group, density=0.5, epsilon=0.3, elect="none", divide="none")
    assert torch.allclose(restored.mean(dim=0).double(), row[0], atol=0.12)


def test_della_refuses_chances_that_are_none() -> None:
    with pytest.raises(RecipeError) as caught:
        merge("della", Group([ones(3, 3)], [1.0]), density=0.1, epsilon=0.2)
    assert str(caught.value) == (
        "della's density − epsilon and density + epsilon must lie in (0, 1], "
        "got density 0.1 and epsilon 0.2; take a smaller epsilon"
    )


@pytest.mark.parametrize("method", ["dare", "dare_ties", "della"])
def test_tiles_and_order_change_no_bit(
    method: str, random_adapter: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [random_adapter(seed, shapes={"x": (9, 11)}).modules["x"] for seed in (1, 2)]
    whole = merge(method, Group(modules, [1.0, 0.5], "x", ["a", "b"]))
    assert torch.equal(merge(method, Group(modules[::-1], [0.5, 1.0], "x", ["b", "a"])), whole)
    assert not torch.equal(merge(method, Group(modules, [1.0, 0.5], "x", ["b", "a"])), whole)
    assert not torch.equal(merge(method, Group(modules, [1.0, 0.5], "x", ["a", "b"]), seed=1), whole)
    monkeypatch.setattr(tiles, "TILE", 22)
    assert torch.equal(merge(method, Group(modules, [1.0, 0.5], "x", ["a", "b"])) != 0, whole != 0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    wide=st.booleans(),
    share=st.floats(0, 1),
    spread=st.integers(-30, 30),
    few=st.booleans(),
)
def test_the_kth_largest_magnitude_is_that_of_torch(
    seed: int, wide: bool, share: float, spread: int, few: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(13, 11, generator=generator, dtype=torch.float64 if wide else torch.float32)
    if few:
        matrix = matrix.round()
    matrix *= 2.0**spread
    count = 1 + int(share * (matrix.numel() - 1))
    expected = float(matrix.abs().flatten().kthvalue(matrix.numel() - count + 1).values)
    assert kth_largest([held(matrix)], count) == expected
    assert kth_largest([held(matrix[:4]), held(matrix[4:])], count) == expected


def test_parts_of_two_precisions_are_ordered_together() -> None:
    fine = held(torch.tensor([[1.0 + 1e-12, 0.5]], dtype=torch.float64))
    coarse = held(torch.tensor([[1.0, 2.0]]))
    assert [kth_largest([fine, coarse], count) for count in (1, 2, 3, 4)] == [2.0, 1.0 + 1e-12, 1.0, 0.5]
