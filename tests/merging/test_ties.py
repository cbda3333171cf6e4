"""TIES against its definition, entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.merging.combining import combine
from palette.merging.group import Group
from palette.merging.methods import METHODS
from palette.merging.plan import MergeInput
from palette.merging.tiles import Tiled, task_vector
from palette.merging.trimming import above, threshold

Maker = Callable[..., Adapter]


def of(*rows: list[float]) -> LoraModule:
    """A module whose ΔW is the matrix of these rows."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return LoraModule(matrix, torch.eye(len(rows), dtype=torch.float64))


def ties(modules: list[LoraModule], weights: list[float], **options: object) -> torch.Tensor:
    row = METHODS["ties"]
    return row.function(Group(modules, weights), **row.settled(options)).dense()


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
    assert METHODS["ties"].survey(adapter.modules, density=0.5, trim="global") == 10.0
    assert METHODS["ties"].survey(adapter.modules, density=0.5, trim="tensor") is None
