"""PEFT's LoRA modules on a backbone, inside a ``with``, and how they are read out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers,
    convert_peft_config_for_transformers,
)
from torch import nn
from torch.autograd import Function
from torch.nn.functional import linear
from torch.nn.utils import parametrize

from palette.adapters.layouts import PAIR, WEIGHT
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.names import last_name
from palette.backbones import Backbone
from palette.backbones.architectures import LINEAR, architecture, fused_experts, is_product
from palette.errors import BackboneError
from palette.internalise.protection import NullSpaceProjection
from palette.seeding import torch_seed
from palette.shapes import Tensor

ALPHA = 2
"""LoRA's alpha, in ranks: what the product of its factors is multiplied by."""


def lora_layers(backbone: Backbone, blocks: Sequence[int]) -> list[str]:
    """The names of the linear layers and fused experts inside the given blocks, in the model's order.

    An expert's is the path of the parameter that holds the matrices of all. That of a linear which PEFT
    would take for something else by its name is the parameter that holds its weight. Those to which PEFT
    would give nothing of a file are left out.
    """
    inside = {module for block in blocks for module in backbone.blocks[block].modules()}
    unadapted = architecture(backbone.model.config).unadapted
    names: list[str] = []
    known: dict[str, bool] = {}
    lost = _lost(backbone)
    for name, module in backbone.model.named_modules():
        leaf = last_name(name)
        if module not in inside or leaf in unadapted or name in lost:
            continue
        if is_product(module):
            if leaf not in known:
                known[leaf] = _is_moved(backbone, leaf)
            names.append(name + WEIGHT if known[leaf] else name)
        else:
            names += [f"{name}.{each}" for each in _writable(module)]
    return names


def _lost(backbone: Backbone) -> set[str]:
    """The linears whose names PEFT takes for those of a checkpoint, and changes as it loads an adapter."""
    linears = {
        f"base_model.model.{name}.lora_A.weight": name
        for name, module in backbone.model.named_modules()
        if isinstance(module, LINEAR)
    }
    # Names alone are looked at.
    factors, config = dict.fromkeys(linears, torch.zeros(1, 1)), LoraConfig(target_modules=[])
    found = convert_peft_adapter_state_dict_for_transformers(backbone.model, config, factors)
    return {name for key, name in linears.items() if key not in found}


def _is_moved(backbone: Backbone, leaf: str) -> bool:
    """Whether PEFT takes linears of this name for the experts that former versions of the library had."""
    config = LoraConfig(target_modules=[leaf])
    try:
        convert_peft_config_for_transformers(config, model=backbone.model, conversions=None)
    except ValueError:  # One of several that it takes together.
        return True
    return leaf not in (config.target_modules or ())


def _writable(module: nn.Module) -> list[str]:
    """The fused parameters of a module whose factors a file can tell apart: PEFT's pair, or the last one."""
    fused = fused_experts(module)
    if set(PAIR) <= set(fused):
        turned = getattr(module, "is_transposed", False)
        first, second = (fused[name].shape[:0:-1] if turned else fused[name].shape[1:] for name in PAIR)
        if first[0] == 2 * second[1]:
            return list(PAIR)
    return list(fused)[-1:]


def _wrapper(model: PeftModel, layer: str) -> Any:
    """PEFT's module on a layer; those on several parameters of one module lie in one another."""
    try:
        return model.get_submodule(f"base_model.model.{layer}")
    except AttributeError:
        owner, _, leaf = layer.rpartition(".")
        found: Any = model.get_submodule(f"base_model.model.{owner}")
        while found.parameter_name != leaf:
            found = found.base_layer
        return found


@contextmanager
def trainable(
    backbone: Backbone,
    layers: Sequence[str],
    *,
    rank: int,
    seed: int,
    projected_out: Mapping[str, Tensor] | None = None,
    begun: Adapter | None = None,
) -> Iterator[PeftModel]:
    """The backbone with LoRA modules on the layers; they are taken off again afterwards.

    Their alpha is twice their rank, so that the rank changes no step's size. ``projected_out`` are the
    input directions of layers that their modules do not read. They are new, or those that were ``begun``.

    Raises:
        BackboneError: if the model keeps a gradient from pass to pass.
    """
    row = architecture(backbone.model.config)
    if row.untrained:
        raise BackboneError(
            "a model must keep nothing of one pass for the next",
            got=f"{backbone.model.config.get_text_config().model_type}, {row.untrained}",
            remedy="use another model",
            where=backbone.name,
        )
    modules = {name for name, _ in backbone.model.named_modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=ALPHA * rank,
        target_modules=[layer for layer in layers if layer in modules],
        target_parameters=[layer for layer in layers if layer not in modules],
        lora_dropout=0.0,
    )
    with torch_seed(seed, "lora"), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        # What PEFT sets by itself for a Conv1D, it says too.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        model = get_peft_model(backbone.model, config)
        _bring_here(model, backbone.model.device)
    try:
        for name, known in (begun.modules if begun else {}).items():
            layer, _, index = name.rstrip("]").partition("[")
            a, b = _factors(_wrapper(model, layer), int(index or 0), known.rank)
            a.copy_(known.lora_A)
            b.copy_(known.lora_B * known.scale / ALPHA)
        for layer, directions in (projected_out or {}).items():
            module = _wrapper(model, layer)
            projection = NullSpaceProjection(directions)
            parametrize.register_parametrization(module.lora_A["default"], "weight", projection)
        for layer in layers:
            quicken(_wrapper(model, layer))
        yield model
    finally:
        model.unload()
        backbone.model.requires_grad_(False)
        if hasattr(backbone.model, "peft_config"):
            del backbone.model.peft_config


def _bring_here(model: PeftModel, device: torch.device) -> None:
    """Puts factors onto a device that PEFT has put where weights lie that are fetched when they run."""
    for module in model.modules():
        if isinstance(module, LoraLayer) and module.lora_A["default"].weight.is_meta:
            for factors in (module.lora_A, module.lora_B):
                factors["default"].to_empty(device=device)
            module.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]


def lora_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """The trained parameters by name, sorted."""
    return dict(sorted((name, p) for name, p in model.named_parameters() if p.requires_grad))


def read_out(model: PeftModel, backbone: Backbone, layers: Sequence[str]) -> Adapter:
    """The trained modules as an adapter of the backbone, its card still empty."""
    config: Any = model.peft_config["default"]
    modules = {}
    for layer in layers:
        module = _wrapper(model, layer)
        # PEFT's module on a parameter says which; one of two axes is a linear's weight.
        fused = hasattr(module, "get_param") and module.get_param().dim() > 2
        for index in range(module.num_experts if fused else 1):
            factors = _factors(module, index, config.r)
            a, b = (factor.to("cpu", torch.float32).clone() for factor in factors)
            modules[f"{layer}[{index}]" if fused else layer] = LoraModule(
                lora_A=a, lora_B=b, scale=config.lora_alpha / config.r
            )
    return Adapter(modules, BackboneIdentity(backbone.name, backbone.fingerprint), {})


def _factors(module: Any, index: int, rank: int) -> tuple[Tensor, Tensor]:
    """An expert's factors as they lie in PEFT's module, which orders A by expert first and B by rank."""
    a, b = (factor["default"].weight.detach() for factor in (module.lora_A, module.lora_B))
    return a.view(-1, rank, a.shape[1])[index], b.view(b.shape[0], rank, -1)[..., index]


class LowRankLinear(Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ as one operation, W and b frozen, with the gradients of x, A and B.

    That is what PEFT's module computes, to rounding. There, a product of as many columns as the rank runs
    at an eighth of the speed of others, and each sum is a pass over the output. Here the narrow side lies
    across, where it costs no more than its share, and the products add themselves up (benchmarks/lora.py).

    It is computed in the precision of W. A and B may be of a higher one, in which their gradients are given.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """The output for x, W, b or None, A, B and s; x may have any leading axes."""
        x, weight, bias, A, B, scale = given
        rows = x.reshape(-1, x.shape[-1])
        ctx.scale, ctx.shape, ctx.precision = scale, x.shape, A.dtype
        A, B = A.to(weight.dtype), B.to(weight.dtype)
        inner = A @ rows.T
        output = linear(rows, weight, bias).addmm_(inner.T, B.T, alpha=scale)
        ctx.save_for_backward(rows, inner, weight, A, B)
        # Not a view, which models that go on in place may not write to.
        return output.resize_(*x.shape[:-1], output.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients: dx = g W + s g B A, dA = s (g B)ᵀ x, dB = s gᵀ (x Aᵀ)."""
        rows, inner, weight, A, B = ctx.saved_tensors
        g = gradients[0].reshape(-1, gradients[0].shape[-1])
        narrow = (B.T @ g.T).mul_(ctx.scale)
        x = (g @ weight).addmm_(narrow.T, A).view(ctx.shape)
        down, up = (each.to(ctx.precision) for each in (narrow @ rows, (inner @ g).T * ctx.scale))
        return x, None, None, down, up, None


def quicken(module: Any) -> None:
    """Lets PEFT's module on a plain linear layer compute by ``LowRankLinear``."""
    base = module.base_layer
    # Of quantised weights, which are stored as whole numbers, the library knows the product, and of those
    # that lie elsewhere, on the disk say, how they are fetched.
    if type(base) is nn.Linear and not base.weight.is_meta and base.weight.dtype.is_floating_point:
        # Bound to the module, so that a twin's runs the twin's own.
        module.forward = MethodType(_quick, module)


def _quick(module: Any, x: Tensor) -> Tensor:
    base, scale = module.base_layer, module.scaling["default"]
    A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
    output: Tensor = LowRankLinear.apply(x, base.weight, base.bias, A, B, scale)  # type: ignore[no-untyped-call]
    return output
