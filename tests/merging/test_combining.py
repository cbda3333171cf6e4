"""Merging whole adapters: one backbone, order, ranks, energies and shapes; and the weighted sum is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError, RecipeError
from palette.merging.combining import MergePlan, combine, in_order
from palette.merging.inputs import Group, MergeInput
from palette.merging.low_rank import weighted_sum
from palette.merging.methods import METHODS, TABLE, merge_method

Maker = Callable[..., Adapter]
Flatten = Callable[[Adapter], torch.Tensor]
seeds = st.integers(0, 2**31)
weights = st.floats(-4, 4)
laws = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("method", [row.name for row in TABLE if not row.takes_moments])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_order_of_adapters_changes_no_byte(
    random_adapter: Maker, tmp_path: Path, method: str, rank: int | None
) -> None:
    inputs = [MergeInput(random_adapter(seed), weight) for seed, weight in enumerate((1.0, 0.5, 0.2))]
    options = {"density": 0.3} if "density" in merge_method(method).options.model_fields else {}
    written = set()
    for number, order in enumerate(permutations(inputs)):
        folder = tmp_path / str(number)
        write_adapter(folder, combine(order, method, rank=rank, options=options)[0])
        written.add(tuple(path.read_bytes() for path in sorted(folder.iterdir())))
    assert number == 5
    assert len(written) == 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 9))
def test_a_smaller_rank_is_the_best_and_says_what_it_keeps(
    random_adapter: Maker, deltas: Flatten, seed: int, rank: int
) -> None:
    inputs = [MergeInput(random_adapter(seed + step)) for step in range(3)]
    exact = combine(inputs)[0]
    merged, report = combine(inputs, rank=rank)
    lost = (deltas(exact) - deltas(merged)).square().sum() / deltas(exact).square().sum()
    assert report.retained_energy == pytest.approx(1 - float(lost), abs=1e-9)
    assert report.rank == merged.rank == rank
    shares = {
        name: 1
        - float((exact.modules[name].delta() - merged.modules[name].delta()).square().sum())
        / float(exact.modules[name].delta().square().sum())
        for name in exact.modules
    }
    worst = min(shares, key=lambda name: shares[name])
    assert report.worst_retained_energy == pytest.approx(shares[worst], abs=1e-9)
    assert shares[report.worst_module] == pytest.approx(shares[worst], abs=1e-9)


def test_a_merge_says_where_it_comes_from(random_adapter: Maker) -> None:
    first, second = random_adapter(1), random_adapter(2)
    merged = combine([MergeInput(second, 0.5), MergeInput(first, 2.0)], "ties", options={"density": 0.5})[0]
    parents = [
        {"digest": first.digest, "weight": 2.0, "domains": ["domain1"]},
        {"digest": second.digest, "weight": 0.5, "domains": ["domain2"]},
    ]
    assert merged.card == {
        "method": "ties",
        "options": {"density": 0.5, "trim": "tensor", "elect": "after", "divide": "count"},
        "domains": ["domain1", "domain2"],
        "parents": sorted(parents, key=lambda parent: parent["digest"]),
        "retained_energy": 1.0,
    }
    assert merged.domains == ("domain1", "domain2")


def test_what_cancels_is_null(random_adapter: Maker) -> None:
    adapter = random_adapter(1)
    merged, report = combine([MergeInput(adapter), MergeInput(adapter, -1.0)])
    assert merged.rank == 0
    assert (report.rank, report.retained_energy) == (0, 1.0)
    assert (report.worst_module, report.worst_retained_energy) == ("layers.0.down_proj", 1.0)


def test_other_shapes_are_refused(random_adapter: Maker) -> None:
    adapter = random_adapter(1, shapes={"x": (4, 5)})
    other = Adapter({"x": LoraModule(torch.ones(1, 6), torch.ones(4, 1))}, adapter.backbone)
    with pytest.raises(AdapterError) as caught:
        combine([MergeInput(adapter, label="one"), MergeInput(other, label="two")])
    sentence = str(caught.value)
    assert sentence.startswith("adapters must agree about the shape of x, got (4, ")
    assert "(4, 6) in two" in sentence
    assert "(4, 5) in one" in sentence


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([("a", "f"), ("a", "f")], ("a", "f")),
        ([("b", "f"), ("a", "f")], ("a", "f")),
        ([("a", "f"), ("a", None)], ("a", None)),
        ([(None, None), (None, None)], (None, None)),
        ([(None, "f"), (None, "f")], (None, "f")),
    ],
)
def test_the_fingerprint_is_kept_only_if_all_state_it(
    random_adapter: Maker,
    identities: list[tuple[str | None, str | None]],
    expected: tuple[str | None, str | None],
) -> None:
    inputs = [
        MergeInput(Adapter(random_adapter(seed).modules, BackboneIdentity(*identity)))
        for seed, identity in enumerate(identities)
    ]
    assert astuple(combine(inputs)[0].backbone) == expected


@pytest.mark.parametrize(
    "identities",
    [
        [("a", "f" * 64), ("a", "g" * 64)],
        [("a", None), ("b", None)],
        [("a", "f" * 64), ("a", None), ("a", "g" * 64)],
    ],
)
def test_different_backbones_are_refused(
    random_adapter: Maker, identities: list[tuple[str | None, str | None]]
) -> None:
    inputs = [
        MergeInput(Adapter(random_adapter(seed).modules, BackboneIdentity(*identity)), label=f"{seed}.st")
        for seed, identity in enumerate(identities)
    ]
    last = len(inputs) - 1
    with pytest.raises(AdapterError) as caught:
        combine(inputs)
    one, other = inputs[0].adapter.backbone, inputs[last].adapter.backbone
    assert str(caught.value) == (
        f"adapters to merge must be made for one backbone, got {one} in 0.st and {other} in "
        f"{last}.st; "
        + (
            "their digests differ: train one of them again on the other's backbone"
            if one.fingerprint and other.fingerprint
            else "if both names mean one model, quantised or not, say so with --same-backbone"
        )
    )


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sum", {}, f"a merge method must be one of {', '.join(METHODS)}, or file.py:name, got sum"),
        ("ties", {"k": 1}, "k is not a key of a merge by ties (merge.options)"),
        ("weighted_sum", {"density": 1.0}, "density is not a key of a merge by weighted_sum (merge.options)"),
        ("ties", {"density": 0.0}, "density: input should be greater than 0, got 0.0 (merge.options)"),
        ("ties", {"trim": "row"}, "trim: input should be 'tensor' or 'global', got 'row' (merge.options)"),
    ],
)
def test_unknown_methods_and_options_are_refused(
    random_adapter: Maker, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        combine([MergeInput(random_adapter(1))], method, options=options)
    assert str(caught.value) == message


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(AdapterError) as caught:
        combine([])
    assert str(caught.value) == "a merge must have at least one adapter, got 0"


@laws
@given(seed=seeds, first=weights, second=weights)
def test_it_is_linear(random_adapter: Maker, deltas: Flatten, seed: int, first: float, second: float) -> None:
    a, b = random_adapter(seed), random_adapter(seed + 1, rank=4)
    merged = combine([MergeInput(a, first), MergeInput(b, second)])[0]
    expected = first * deltas(a) + second * deltas(b)
    scale = float(deltas(a).abs().max() + deltas(b).abs().max())
    assert torch.allclose(deltas(merged), expected, atol=1e-12 * scale)


@laws
@given(seed=seeds)
def test_the_identity_keeps_the_adapters_own_factors(random_adapter: Maker, seed: int) -> None:
    adapter = random_adapter(seed)
    assert combine([MergeInput(adapter)])[0].digest == adapter.digest


@laws
@given(seed=seeds, count=st.integers(1, 4), weight=st.floats(0.25, 2))
def test_the_written_sum_is_exact_to_1e_6_in_float32(
    random_adapter: Maker,
    deltas: Flatten,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    weight: float,
) -> None:
    parts = [random_adapter(seed + step) for step in range(count)]
    merged, report = combine([MergeInput(part, weight) for part in parts])
    folder = tmp_path_factory.mktemp("sum")
    write_adapter(folder, merged)
    expected = sum(weight * deltas(part) for part in parts)
    error = (deltas(read_adapter(folder)) - expected).norm() / expected.norm()
    assert error <= 1e-6
    assert report.retained_energy == 1.0
    assert report.rank == min(3 * count, 10)


def test_an_adapter_may_be_taken_out_again(random_adapter: Maker, deltas: Flatten) -> None:
    a, b = random_adapter(1), random_adapter(2)
    both = combine([MergeInput(a), MergeInput(b)])[0]
    left = combine([MergeInput(both), MergeInput(b, -1.0)])[0]
    assert torch.allclose(deltas(left), deltas(a), atol=1e-11)
    assert left.rank == a.rank


def test_modules_of_one_block_each_are_united(random_adapter: Maker) -> None:
    a = random_adapter(1, shapes={"layers.0.x": (4, 5)})
    b = random_adapter(2, shapes={"layers.1.x": (4, 5)})
    merged = combine([MergeInput(a), MergeInput(b, 2.0)])[0]
    assert set(merged.modules) == {"layers.0.x", "layers.1.x"}
    expected = 2.0 * b.modules["layers.1.x"].delta()
    assert torch.allclose(merged.modules["layers.1.x"].delta(), expected)


def test_a_weight_of_zero_takes_no_rank(random_adapter: Maker) -> None:
    module = random_adapter(1).modules["layers.0.down_proj"]
    assert weighted_sum(Group([module, module], [1.0, 0.0])).rank == module.rank


def test_the_number_of_workers_changes_no_byte(random_adapter: Maker) -> None:
    inputs = [MergeInput(random_adapter(seed)) for seed in range(3)]
    merge = MergePlan(inputs, "dare_ties").merger()
    names = sorted(inputs[0].names)
    results = [[merged.dense() for _, merged in in_order(merge, names, workers)] for workers in (1, 2, 3)]
    assert all(torch.equal(*pair) for other in results[1:] for pair in zip(results[0], other, strict=True))
