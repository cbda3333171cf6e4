"""Mounting: the same logits as PEFT, hooks gone afterwards, several adapters add."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.mounting import mounted
from palette.errors import AdapterError


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_logits_equal_pefts(
    backbone: Callable[[], LlamaForCausalLM],
    peft_folder: Callable[..., Path],
    tokens: torch.Tensor,
    options: dict[str, object],
) -> None:
    folder = peft_folder(**options)
    model = backbone()
    before = weights(model)
    with torch.no_grad():
        plain = model(tokens).logits
        with mounted(model, read_adapter(folder)):
            ours = model(tokens).logits
        after = model(tokens).logits
        theirs = PeftModel.from_pretrained(backbone(), folder)(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - plain).abs().max() > 1e-2
    assert torch.equal(plain, after)
    assert hooks(model) == 0
    assert all(torch.equal(one, two) for one, two in zip(before, weights(model), strict=True))


def test_nested_adapters_add(random_module: Callable[..., LoraModule]) -> None:
    model = torch.nn.ModuleDict({"x": torch.nn.Linear(12, 10)})
    first = Adapter({"x": random_module(1)})
    second = Adapter({"x": random_module(2)})
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    plain = model["x"](x)
    with mounted(model, first):
        with mounted(model, second):
            both = model["x"](x)
            assert hooks(model) == 2
        one = model["x"](x)
    delta = random_module(1).delta().float()
    assert torch.allclose(one, plain + x @ delta.T, atol=1e-5)
    assert torch.allclose(both, one + x @ random_module(2).delta().float().T, atol=1e-5)
    with mounted(model, first, second):
        assert torch.equal(model["x"](x), both)
    with pytest.raises(AdapterError), mounted(model, first, Adapter({"y": random_module(2)})):
        pass
    assert hooks(model) == 0
    with mounted(model):
        assert torch.equal(model["x"](x), plain)


def test_half_precision_is_added_in_float32(random_module: Callable[..., LoraModule]) -> None:
    model = torch.nn.ModuleDict({"x": torch.nn.Linear(12, 10, bias=False, dtype=torch.bfloat16)})
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    plain = model["x"](x)
    module = random_module(1)
    with mounted(model, Adapter({"x": module})):
        out = model["x"](x)
    expected = plain + (x.double() @ module.delta().T).float().bfloat16()
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)


def test_gradients_flow_through_a_mounted_adapter(random_module: Callable[..., LoraModule]) -> None:
    model = torch.nn.ModuleDict({"x": torch.nn.Linear(12, 10)})
    module = random_module(1)
    module.lora_A.requires_grad_()
    with mounted(model, Adapter({"x": module})):
        model["x"](torch.ones(1, 12)).sum().backward()
    assert module.lora_A.grad is not None


def test_hooks_are_removed_after_an_exception(random_module: Callable[..., LoraModule]) -> None:
    model = torch.nn.ModuleDict({"x": torch.nn.Linear(12, 10)})
    with (
        pytest.raises(RuntimeError, match="inside"),
        mounted(model, Adapter({"x": random_module(1)})),
    ):
        assert hooks(model) == 1
        raise RuntimeError("inside")
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("y", (12, 10), "an adapter's modules must be linear modules of the backbone, got none at"),
        ("n", (12, 10), "linear modules of the backbone, got LayerNorm at n; mount the adapter on"),
        ("x", (11, 10), "a delta must have the shape of its module, 10×12, got 10×11 for x; mount"),
    ],
)
def test_a_foreign_backbone_is_refused_with_no_hook_left(
    random_module: Callable[..., LoraModule], name: str, sizes: tuple[int, int], message: str
) -> None:
    model = torch.nn.ModuleDict({"x": torch.nn.Linear(12, 10), "n": torch.nn.LayerNorm(12)})
    fitting = {"x": random_module(1)} if name != "x" else {}
    adapter = Adapter({**fitting, name: random_module(1, 4, *sizes)})
    with pytest.raises(AdapterError) as caught, mounted(model, adapter):
        raise AssertionError("nothing may be mounted")
    assert message in str(caught.value)
    assert hooks(model) == 0
