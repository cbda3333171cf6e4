"""The laws of a merge that PEFT's own merge of factors breaks, shown on the same adapters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from palette.adapters.lora import Adapter, LoraModule
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput

SHAPE, RANK = (40, 48), 4


class Linear(nn.Module):
    """A model of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(SHAPE[1], SHAPE[0], bias=False)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def random_module(seed: int, scale: float = 2.0) -> LoraModule:
    generator = torch.Generator().manual_seed(seed)
    return LoraModule(
        torch.randn(RANK, SHAPE[1], generator=generator),
        torch.randn(SHAPE[0], RANK, generator=generator),
        scale,
    )


def rotated(module: LoraModule, seed: int) -> LoraModule:
    turn = torch.randn(RANK, RANK, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lora_A = (turn @ module.lora_A.double()).float()
    return LoraModule(lora_A, (module.lora_B.double() @ turn.inverse()).float(), module.scale)


def theirs(modules: list[LoraModule], kind: str, **options: Any) -> torch.Tensor:
    """PEFT's merged ΔW at weight 1 each."""
    rslora = options.pop("use_rslora", False)
    alpha = modules[0].scale * (RANK**0.5 if rslora else RANK)
    config = LoraConfig(r=RANK, lora_alpha=alpha, target_modules=["layer"], use_rslora=rslora)
    model = get_peft_model(Linear(), config, adapter_name="0")
    for index, module in enumerate(modules):
        if index:
            model.add_adapter(str(index), config)
        layer: Any = model.base_model.model.layer
        layer.lora_A[str(index)].weight.data.copy_(module.lora_A)
        layer.lora_B[str(index)].weight.data.copy_(module.lora_B)
    names = [str(index) for index in range(len(modules))]
    model.add_weighted_adapter(names, [1.0] * len(names), "merged", combination_type=kind, **options)
    delta: torch.Tensor = model.base_model.model.layer.get_delta_weight("merged")
    return delta.detach().double()


def ours(modules: list[LoraModule], method: str = "weighted_sum", **options: Any) -> torch.Tensor:
    inputs = [MergeInput(Adapter({"layer": module})) for module in modules]
    return combine(inputs, method, options=options)[0].modules["layer"].delta()


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_linear_is_not_the_sum_and_ours_is() -> None:
    modules = [random_module(seed) for seed in (1, 2)]
    wanted = modules[0].delta() + modules[1].delta()
    assert error(theirs(modules, "linear"), wanted) > 0.8
    assert error(ours(modules), wanted) < 1e-12


@pytest.mark.parametrize("kind", ["linear", "ties"])
def test_rotated_factors_change_theirs_and_not_ours(kind: str) -> None:
    modules = [random_module(seed) for seed in (1, 2)]
    turned = [rotated(modules[0], 3), modules[1]]
    assert error(turned[0].delta(), modules[0].delta()) < 1e-5
    given = {"density": 0.5} if kind == "ties" else {}
    method = "ties" if kind == "ties" else "weighted_sum"
    assert error(theirs(turned, kind, **given), theirs(modules, kind, **given)) > 0.5
    # What rounding moves across the threshold is an entry or two.
    assert error(ours(turned, method, **given), ours(modules, method, **given)) < 0.02


def test_one_rslora_adapter_at_weight_1_is_itself_only_here() -> None:
    module = random_module(1)
    assert error(theirs([module], "svd", use_rslora=True), module.delta()) > 0.4
    assert error(ours([module]), module.delta()) < 1e-12


def test_what_cancels_is_null_only_here() -> None:
    module = random_module(1)
    minus = LoraModule(module.lora_A, -module.lora_B, module.scale)
    turned = rotated(minus, 5)
    assert error(theirs([module, turned], "linear"), module.delta()) > 0.2
    assert float(theirs([module, turned], "linear").norm()) > 0.5 * module.norm()
    assert float(ours([module, turned]).norm()) < 1e-5 * module.norm()
