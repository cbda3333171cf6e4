"""The contract of every merge method in the table, and proof that it catches broken ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.errors import RecipeError
from palette.merging import tiles
from palette.merging.combining import combine
from palette.merging.inputs import Group, MergeInput
from palette.merging.methods import LAWS, METHODS, TABLE, Compat, MergeMethod, OptionValue, merge_method
from palette.merging.tiles import Tiled, factors, task_vector, weighted

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


LOSSLESS: dict[str, dict[str, OptionValue]] = {
    "breadcrumbs": {"gamma": 0.0},
    "della": {"epsilon": 0.0},
    "compress_then_merge": {"components": 1 << 16},
}
"""With which options, beside density 1, one adapter comes out as it went in."""


def lossless(row: MergeMethod) -> dict[str, OptionValue]:
    """The options with which one adapter comes out as it went in."""
    return {
        **({"density": 1.0} if "density" in row.options.model_fields else {}),
        **LOSSLESS.get(row.name, {}),
    }


class Contract:
    """The laws of methods, each held for the function itself, module by module.

    A method that takes moments is given some, and one with a survey is given what it finds.
    """

    def __init__(self, row: MergeMethod, random_adapter: Maker, rotated: Turner) -> None:
        self.row, self.make, self.rotated = row, random_adapter, rotated
        self.function = row.load()

    def group(self, name: str, parts: Parts, options: dict[str, OptionValue]) -> Group:
        modules, weights, keys = zip(*parts, strict=True)
        survey = self.row.survey.load() if self.row.survey else None
        surveyed = [survey({name: one}, **options) for one in modules] if survey else []
        moments = [moment(key, modules[0].shape[1]) for key in keys] if self.row.takes_moments else None
        found = None if None in surveyed or not surveyed else surveyed
        return Group(modules, weights, name, keys, found, moments)

    def merge(self, name: str, parts: Parts, **given: OptionValue) -> torch.Tensor:
        options = self.row.settled(given)
        return dense(self.function(self.group(name, parts, options), **options))

    def near(self, one: torch.Tensor, other: torch.Tensor) -> None:
        assert torch.allclose(one, other, rtol=0, atol=TOLERANCE * float(other.abs().max()) + 1e-300)

    def identity(self, seed: int) -> None:
        for name in NAMES:
            module = self.make(seed).modules[name]
            self.near(self.merge(name, [(module, 1.0, "a")], **lossless(self.row)), module.delta())

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
        merged = self.function(self.group(NAMES[0], self.pair(seed), options), **options)
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
    ("method", "law"), [(row.name, law) for row in TABLE for law in (*sorted(row.laws), *EVERY)]
)
def test_every_method_keeps_the_laws_it_claims(
    method: str, law: str, random_adapter: Maker, rotated: Turner
) -> None:
    @settings(max_examples=5, deadline=None)
    @given(seed=st.integers(0, 2**31))
    def holds(seed: int) -> None:
        getattr(Contract(merge_method(method), random_adapter, rotated), law)(seed)

    holds()


def test_what_is_not_claimed_is_not_kept(random_adapter: Maker, rotated: Turner) -> None:
    unclaimed = [(row.name, law) for row in TABLE for law in LAWS - row.laws]
    assert unclaimed == [("regmean", "cancellation")]
    # Of one adapter's factors and two tasks' moments, which only combine's repeats could not be.
    contract = Contract(merge_method("regmean"), random_adapter, rotated)
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
    monkeypatch.setattr(MergeMethod, "load", lambda _: broken)
    contract = Contract(MergeMethod("broken", "here:broken", "none"), random_adapter, rotated)
    with pytest.raises(AssertionError):
        getattr(contract, caught_by)(seed=1)


def test_rows_are_named_after_themselves_and_say_what_they_compute() -> None:
    assert next(iter(METHODS)) == "weighted_sum"
    assert list(METHODS) == [row.name for row in TABLE]
    for row in TABLE:
        paper, _, equation = row.source.partition(": ")
        arxiv = paper.rsplit(" ", 1)[1]
        assert "arXiv" in paper
        assert equation
        assert arxiv in row.load().__doc__
        assert row.settled(lossless(row)).keys() == row.settled({}).keys()


@pytest.mark.parametrize("tool", get_args(Compat))
def test_presets_are_options_of_their_methods(tool: str) -> None:
    known = [row for row in TABLE if tool in row.compat]
    assert known
    for row in known:
        assert row.compat[tool].items() <= row.settled({}, tool).items()
        assert row.settled(lossless(row), tool).items() >= lossless(row).items()


def test_what_is_not_given_is_the_default_of_its_own_type() -> None:
    row = merge_method("ties")
    assert row.settled({}) == {"density": 0.2, "trim": "tensor", "elect": "after", "divide": "count"}
    assert type(row.settled({"density": 1})["density"]) is float
    assert all(field.description for row in TABLE for field in row.options.model_fields.values())


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("ties", {"density": 0.0}, "density: input should be greater than 0, got 0.0"),
        ("ties", {"density": float("nan")}, "density: input should be less than or equal to 1, got nan"),
        ("ties", {"density": "half"}, "density: input should be a valid number, got 'half'"),
        ("ties", {"density": True}, "density: input should be a valid number, got True"),
        ("ties", {"trim": "row"}, "trim: input should be 'tensor' or 'global', got 'row'"),
        ("ties", {"dens": 1.0}, "dens is not a key of a merge by ties, did you mean density?"),
        ("compress_then_merge", {"components": 1.5}, "components: input should be a valid integer, got 1.5"),
        ("dare", {"seed": -1}, "seed: input should be greater than or equal to 0, got -1"),
        ("pico", {"restore": 1}, "restore: input should be a valid boolean, got 1"),
        ("tsv", {"size": 1}, "size is not a key of a merge by tsv"),
    ],
)
def test_the_rest_is_refused(method: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        merge_method(method).settled(given)
    assert str(caught.value) == f"{message} (merge.options)"


def test_a_function_of_the_users_own_file_is_a_method(random_adapter: Maker, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from palette.adapters.factorisation import concatenate\n"
        "def halved(group):\n"
        "    return concatenate(group.modules, [weight / 2 for weight in group.weights])\n"
    )
    adapter = random_adapter(1)
    merged, _ = combine([MergeInput(adapter)], f"{mine}:halved")
    for name, module in adapter.modules.items():
        assert torch.allclose(merged.modules[name].delta(), module.delta() / 2)
    with pytest.raises(RecipeError, match="density is not a key of a merge by"):
        combine([MergeInput(adapter)], f"{mine}:halved", options={"density": 0.5})
