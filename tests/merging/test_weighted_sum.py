"""The weighted sum: exact, linear, and what PEFT's `linear` is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity
from palette.adapters.writing import write_adapter
from palette.merging.combining import combine
from palette.merging.group import Group
from palette.merging.plan import MergeInput
from palette.merging.weighted_sum import weighted_sum

Maker = Callable[..., Adapter]
Flatten = Callable[[Adapter], torch.Tensor]
seeds = st.integers(0, 2**31)
weights = st.floats(-4, 4)
laws = settings(max_examples=25, deadline=None)


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


class OneLinear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(24, 20, bias=False)


@pytest.mark.parametrize("combination", ["linear", "ties"])
def test_pefts_merges_of_factors_break_the_laws(tmp_path: Path, combination: str) -> None:
    """METHODS.md, section 8: `linear` is 82–100 % off; rotation changes both by over 100 %."""

    def deltas_of_peft(rotate: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        generator = torch.Generator().manual_seed(5)
        config = LoraConfig(r=4, lora_alpha=4, target_modules=["layer"])
        model = get_peft_model(OneLinear(), config, "one")
        model.add_adapter("two", config)
        layer = model.base_model.model.layer
        for name in ("one", "two"):
            down, up = layer.lora_A[name].weight.data, layer.lora_B[name].weight.data
            down.copy_(torch.randn(down.shape, generator=generator))
            up.copy_(torch.randn(up.shape, generator=generator))
        if rotate:
            G = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
            layer.lora_A["one"].weight.data.copy_(G @ layer.lora_A["one"].weight)
            layer.lora_B["one"].weight.data.copy_(layer.lora_B["one"].weight @ G.T)
        options = {"density": 0.5} if combination == "ties" else {}
        model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "m", combination, **options)
        if not rotate and combination == "linear":
            model.save_pretrained(tmp_path, selected_adapters=["one", "two"])
        return layer.get_delta_weight("m"), [layer.get_delta_weight(n) for n in ("one", "two")]

    plain, parts = deltas_of_peft(rotate=False)
    turned, same_parts = deltas_of_peft(rotate=True)
    assert torch.allclose(sum(parts), sum(same_parts), atol=1e-4)
    assert (turned - plain).norm() / plain.norm() > 0.3
    if combination == "linear":
        assert (plain - sum(parts)).norm() / sum(parts).norm() > 0.5
        adapters = [read_adapter(named(tmp_path / name)) for name in ("one", "two")]
        ours = combine([MergeInput(adapter) for adapter in adapters])[0].modules["layer"].delta()
        assert (ours - sum(parts)).norm() / sum(parts).norm() <= 1e-6
        assert adapters[0].backbone == BackboneIdentity("tiny")


def named(folder: Path) -> Path:
    """The folder, whose configuration now names its backbone."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "tiny"}))
    return folder
