"""The contract of every merge method in the table, and proof that it catches broken ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.merging import plan, tiles
from palette.merging.compat import COMPAT
from palette.merging.group import Group
from palette.merging.methods import LAWS, METHODS, MergeMethod
from palette.merging.options import OptionValue
from palette.merging.rangefinder import factors
from palette.merging.tiles import Tiled, task_vector, weighted

Maker = Callable[..., Adapter]
Turner = Callable[[Adapter, int], Adapter]
Parts = Sequence[tuple[LoraModule, float, str]]

TOLERANCE = 1e-9
NAMES = ("layers.0.down_proj", "layers.1.q_proj")


def dense(merged: LoraModule | Tiled) -> torch.Tensor:
    return merged.delta() if isinstance(merged, LoraModule) else merged.dense()


def moment(key: str, d_in: int) -> torch.Tensor:
    """A positive definite second moment that belongs to an adapter."""
    generator = torch.Generator().manual_seed(len(key) + sum(map(ord, key)))
    inputs = torch.randn(d_in, 3 * d_in, generator=generator, dtype=torch.float64)
    return inputs @ inputs.T


class Contract:
    """The laws of methods, each held for the function itself, module by module.

    A method that takes moments is given some, and one with a survey is given what it finds.
    """

    def __init__(self, method: str, random_adapter: Maker, rotated: Turner) -> None:
        self.row, self.make, self.rotated = METHODS[method], random_adapter, rotated

    def group(self, name: str, parts: Parts, options: dict[str, OptionValue]) -> Group:
        modules, weights, keys = zip(*parts, strict=True)
        surveyed = [self.row.survey({name: one}, **options) for one in modules] if self.row.survey else []
        moments = [moment(key, modules[0].shape[1]) for key in keys] if self.row.takes_moments else None
        found = None if None in surveyed or not surveyed else surveyed
        return Group(modules, weights, name, keys, found, moments)

    def merge(self, name: str, parts: Parts, **given: OptionValue) -> torch.Tensor:
        options = self.row.settled(given)
        return dense(self.row.function(self.group(name, parts, options), **options))

    def near(self, one: torch.Tensor, other: torch.Tensor) -> None:
        assert torch.allclose(one, other, rtol=0, atol=TOLERANCE * float(other.abs().max()) + 1e-300)

    def identity(self, seed: int) -> None:
        for name in NAMES:
            module = self.make(seed).modules[name]
            self.near(self.merge(name, [(module, 1.0, "a")], **self.row.lossless), module.delta())

    def cancellation(self, seed: int) -> None:
        for name in NAMES:
            module = self.make(seed).modules[name]
            left = self.merge(name, [(module, 1.0, "a"), (module, -1.0, "a")])
            assert float(left.norm()) <= 1e-12 * module.norm()

    def homogeneity(self, seed: int) -> None:
        for name in NAMES:
            first, second = self.make(seed).modules[name], self.make(seed + 1).modules[name]
            once = self.merge(name, [(first, 0.5, "a"), (second, 1.0, "b")])
            thrice = self.merge(name, [(first, 1.5, "a"), (second, 3.0, "b")])
            self.near(thrice, 3.0 * once)

    def rotation(self, seed: int) -> None:
        first, second = self.make(seed), self.make(seed + 1, rank=4)
        others = self.rotated(first, seed), self.rotated(second, seed + 7)
        for name in NAMES:
            one, two = first.modules[name], second.modules[name]
            plain = self.merge(name, [(one, 1.0, "a"), (two, 0.5, "b")])
            one, two = (other.modules[name] for other in others)
            self.near(self.merge(name, [(one, 1.0, "a"), (two, 0.5, "b")]), plain)

    def determinism(self, seed: int) -> None:
        assert torch.equal(self.merge(NAMES[0], self.pair(seed)), self.merge(NAMES[0], self.pair(seed)))

    def tiling(self, seed: int) -> None:
        whole = self.merge(NAMES[0], self.pair(seed))
        before = tiles.TILE
        try:
            for rows in (1, 3, 7):
                tiles.TILE = 12 * rows
                assert torch.allclose(self.merge(NAMES[0], self.pair(seed)), whole, rtol=0, atol=1e-12)
        finally:
            tiles.TILE = before

    def fullness(self, seed: int) -> None:
        """Factors of the exact rank, written in float32, are the merge to 1e-6."""
        options = self.row.settled({})
        merged = self.row.function(self.group(NAMES[0], self.pair(seed), options), **options)
        written, expected = factors(merged).module.canonical().delta(), dense(merged)
        assert (written - expected).norm() <= 1e-6 * expected.norm()

    def pair(self, seed: int) -> Parts:
        modules = (self.make(seed + step).modules[NAMES[0]] for step in range(2))
        return list(zip(modules, (1.0, 0.5), "ab", strict=True))

    def order(self, seed: int) -> None:
        for name in NAMES:
            modules = [self.make(seed + step, rank=2).modules[name] for step in range(3)]
            parts = list(zip(modules, [1.0, 0.5, -0.7], "abc", strict=True))
            self.near(self.merge(name, parts[::-1]), self.merge(name, parts))


EVERY = ("determinism", "tiling", "fullness")
"""What is asked of every method, claimed or not."""


@pytest.mark.parametrize(
    ("method", "law"), [(name, law) for name, row in METHODS.items() for law in (*row.laws, *EVERY)]
)
def test_every_method_keeps_the_laws_it_claims(
    method: str, law: str, random_adapter: Maker, rotated: Turner
) -> None:
    @settings(max_examples=5, deadline=None)
    @given(seed=st.integers(0, 2**31))
    def holds(seed: int) -> None:
        getattr(Contract(method, random_adapter, rotated), law)(seed)

    holds()


def test_what_is_not_claimed_is_not_kept(random_adapter: Maker, rotated: Turner) -> None:
    unclaimed = [(name, law) for name, row in METHODS.items() for law in LAWS if law not in row.laws]
    assert unclaimed == [("regmean", "cancellation")]
    # Of one adapter's factors and two tasks' moments, which only combine's repeats could not be.
    contract = Contract("regmean", random_adapter, rotated)
    module = random_adapter(1).modules[NAMES[0]]
    assert contract.merge(NAMES[0], [(module, 1.0, "a"), (module, -1.0, "b")]).any()


def factor_wise(group: Group) -> LoraModule:
    """PEFT's `linear`: adds factors, so that cross terms appear."""
    rank = min(module.rank for module in group.modules)
    down, up = 0.0, 0.0
    for weight, module in zip(group.weights, group.modules, strict=True):
        root = abs(weight * module.scale) ** 0.5
        down = down + root * module.lora_A[:rank]
        up = up + math.copysign(root, weight) * module.lora_B[:, :rank]
    return LoraModule(down, up)


def doubling(group: Group) -> Tiled:
    vectors = [task_vector(module) for module in group.modules]
    return weighted(vectors, [2 * weight for weight in group.weights])


def first_wins(group: Group) -> Tiled:
    return weighted([task_vector(group.modules[0])], group.weights[:1])


def deaf(group: Group) -> Tiled:
    return weighted([task_vector(module) for module in group.modules], [1.0] * len(group.modules))


def restless(group: Group) -> Tiled:
    return weighted([task_vector(group.modules[0])], [float(torch.rand(()))])


def tile_by_tile(group: Group) -> Tiled:
    """Keeps the larger half of whatever rows it is asked for."""
    vector = task_vector(group.modules[0])

    def rows(start: int, stop: int) -> torch.Tensor:
        tile = vector.rows(start, stop)
        return torch.where(tile.abs() >= tile.abs().median(), tile, 0.0)

    return Tiled(vector.shape, vector.dtype, rows)


def wavering(group: Group) -> Tiled:
    """Gives other rows each time it is asked, so that its factors are of no one matrix."""
    vector, asked = task_vector(group.modules[0]), []

    def rows(start: int, stop: int) -> torch.Tensor:
        asked.append(start)
        return len(asked) * vector.rows(start, stop)

    return Tiled(vector.shape, vector.dtype, rows)


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (restless, "determinism"),
        (tile_by_tile, "tiling"),
        (wavering, "fullness"),
        (factor_wise, "rotation"),
        (doubling, "identity"),
        (first_wins, "order"),
        (first_wins, "cancellation"),
        (deaf, "homogeneity"),
    ],
)
def test_the_contract_catches_broken_methods(
    broken: Callable[..., LoraModule | Tiled],
    caught_by: str,
    random_adapter: Maker,
    rotated: Turner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "broken", MergeMethod("broken", "none", "none", broken))
    contract = Contract("broken", random_adapter, rotated)
    with pytest.raises(AssertionError):
        getattr(contract, caught_by)(seed=1)


def test_rows_are_named_after_themselves_and_say_what_they_compute() -> None:
    assert next(iter(METHODS)) == "weighted_sum"
    for name, row in METHODS.items():
        assert row.name == name
        assert "arXiv" in row.paper
        assert row.equation
        arxiv = row.paper.rsplit(" ", 1)[1]
        assert row.function.__doc__ and arxiv in row.function.__doc__
        assert row.settled(row.lossless).keys() == row.settled({}).keys()
    assert plan.METHODS is METHODS


@pytest.mark.parametrize("tool", COMPAT)
def test_presets_are_options_of_their_methods(tool: str) -> None:
    for name, options in COMPAT[tool].items():
        settled = METHODS[name].settled(options)
        assert {key: settled[key] for key in options} == options
