"""Merging whole adapters: order, ranks, energies and shapes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError
from palette.merging.combining import combine
from palette.merging.methods import METHODS
from palette.merging.plan import MergeInput

Maker = Callable[..., Adapter]
Flatten = Callable[[Adapter], torch.Tensor]


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.takes_moments])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_order_of_adapters_changes_no_byte(
    random_adapter: Maker, tmp_path: Path, method: str, rank: int | None
) -> None:
    inputs = [MergeInput(random_adapter(seed), weight) for seed, weight in enumerate((1.0, 0.5, 0.2))]
    options = {"density": 0.3} if "density" in {one.name for one in METHODS[method].options} else {}
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
