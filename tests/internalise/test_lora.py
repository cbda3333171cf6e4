"""Laws of LoRA modules: they begin as the backbone, leave no trace, and read only what they may."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette import organism
from palette.backbones import load_backbone
from palette.internalise.lora import (
    LowRankLinear,
    lora_layers,
    lora_parameters,
    read_out,
    trainable,
)
from palette.internalise.protection import protected_directions


def test_a_trained_module_reads_nothing_that_is_projected_out(backbone, pools):
    layers = lora_layers(backbone, [0])
    projected_out = protected_directions(backbone, layers, pools, 0.1, 0)
    assert all(directions.shape[1] > 0 for directions in projected_out.values())
    with trainable(backbone, layers, rank=2, seed=0, projected_out=projected_out) as model:
        parameters = lora_parameters(model)
        assert len(parameters) == 2 * len(layers)
        generator = torch.Generator().manual_seed(0)
        for parameter in parameters.values():
            parameter.data += torch.randn(parameter.shape, generator=generator)
        adapter = read_out(model, backbone, layers)
    assert sorted(adapter.modules) == sorted(layers)
    for layer, module in adapter.modules.items():
        assert float((module.lora_A @ projected_out[layer]).abs().max()) < 1e-4
        assert float(module.lora_A.abs().max()) > 0.1
    # Nothing of it stays on the backbone.
    assert not any("parametrizations" in name for name, _ in backbone.model.named_modules())


def test_the_backbone_is_left_as_it_was_even_after_an_error(backbone, pools):
    ids = torch.tensor([pools[0][0].ids])
    before = backbone.model(ids).logits
    names = [name for name, _ in backbone.model.named_modules()]
    with (
        pytest.raises(RuntimeError, match="stop"),
        trainable(backbone, lora_layers(backbone, [0]), rank=2, seed=0),
    ):
        raise RuntimeError("stop")
    assert torch.equal(backbone.model(ids).logits, before)
    assert [name for name, _ in backbone.model.named_modules()] == names
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_a_new_adapter_is_the_backbone(backbone, pools):
    ids = torch.tensor([pools[0][0].ids])
    before = backbone.model(ids).logits
    with trainable(backbone, lora_layers(backbone, [0]), rank=2, seed=0):
        assert torch.equal(backbone.model(ids).logits, before)


def test_layers_are_the_linears_of_the_blocks(backbone):
    layers = lora_layers(backbone, [2])
    assert len(layers) == 7
    assert all(name.startswith("model.layers.2.") for name in layers)


def test_training_goes_on_from_what_was_begun(backbone):
    layers = lora_layers(backbone, [0])
    with trainable(backbone, layers, rank=2, seed=1) as model:
        for parameter in lora_parameters(model).values():
            torch.nn.init.normal_(parameter)
        begun = read_out(model, backbone, layers)
    rescaled = {
        name: replace(module, lora_B=4 * module.lora_B, scale=module.scale / 4)
        for name, module in begun.modules.items()
    }
    with trainable(backbone, layers, rank=2, seed=2, begun=replace(begun, modules=rescaled)) as model:
        again = read_out(model, backbone, layers)
    for name, module in begun.modules.items():
        assert torch.equal(again.modules[name].delta(), module.delta())


@given(
    lead=st.sampled_from([(3,), (2, 5), (1, 2, 4)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_one_operation_is_the_linear_layer_with_its_low_rank_update(lead, sizes, biased, seed):
    wide, out, rank = sizes
    draw = torch.Generator().manual_seed(seed)

    def fresh(*shape, trained=False):
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_(trained)

    x, A, B = (
        fresh(*lead, wide, trained=True),
        fresh(rank, wide, trained=True),
        fresh(out, rank, trained=True),
    )
    weight, bias = fresh(out, wide), fresh(out) if biased else None
    plain = torch.nn.functional.linear(x, weight, bias) + 2.0 * x @ A.T @ B.T
    assert torch.allclose(LowRankLinear.apply(x, weight, bias, A, B, 2.0), plain)
    assert torch.autograd.gradcheck(
        lambda x, A, B: LowRankLinear.apply(x, weight, bias, A, B, 2.0), (x, A, B)
    )


def test_quickened_modules_compute_what_peft_s_own_do_and_twins_run_their_own(shared):
    backbone, chat = shared.backbone, [{"role": "user", "content": "what is this ?"}]
    ids = torch.tensor([backbone.render(chat)])
    layers = lora_layers(backbone, range(backbone.layers))
    with trainable(backbone, layers, rank=3, seed=1) as model:
        parameters = lora_parameters(model)
        for number, each in enumerate(parameters.values()):
            each.data += 0.01 * torch.randn(each.shape, generator=torch.Generator().manual_seed(number))
        modules = [model.get_submodule(f"base_model.model.{layer}") for layer in layers]
        assert all("forward" in vars(module) for module in modules)
        twin = backbone.twin()
        quick, theirs = (each.model(input_ids=ids).logits for each in (backbone, twin))
        # The twin shares what is trained, and its modules are not the first one's.
        assert torch.equal(quick, theirs)
        copies = dict(twin.model.named_modules())
        assert all(copies[layer].forward.__self__ is copies[layer] for layer in layers)
        found = torch.autograd.grad(quick.square().sum(), parameters.values())
        for module in modules:
            del module.forward
        plain = backbone.model(input_ids=ids).logits
        wanted = torch.autograd.grad(plain.square().sum(), parameters.values())
        assert torch.allclose(quick, plain, atol=1e-4)
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_modules_of_whole_precision_on_a_backbone_of_half_compute_in_half_and_learn_in_whole():
    half = load_backbone(organism.weights("shared"), "organism/shared", dtype="bfloat16")
    ids = torch.tensor([half.render([{"role": "user", "content": "what is this ?"}])])
    with trainable(half, lora_layers(half, range(half.layers)), rank=3, seed=1) as model:
        parameters = lora_parameters(model)
        for number, each in enumerate(parameters.values()):
            each.data += 0.01 * torch.randn(each.shape, generator=torch.Generator().manual_seed(number))
        modules = [each for each in model.modules() if "forward" in vars(each)]
        assert modules
        quick = half.model(input_ids=ids).logits
        found = torch.autograd.grad(quick.float().square().sum(), parameters.values())
        for module in modules:
            del module.forward
        plain = half.model(input_ids=ids).logits
        wanted = torch.autograd.grad(plain.float().square().sum(), parameters.values())
        assert quick.dtype == plain.dtype == torch.bfloat16
        assert torch.allclose(quick.float(), plain.float(), atol=0.05 * float(plain.detach().abs().max()))
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == torch.float32
            assert float((one - other).norm()) < 0.1 * float(other.norm()) + 1e-3
