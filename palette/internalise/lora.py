"""PEFT's LoRA modules on a backbone, inside a ``with``, and read out as an adapter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.utils import parametrize

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.backbones import Backbone
from palette.backbones.architectures import LINEAR
from palette.internalise.null_space import Reading
from palette.seeding import torch_seed
from palette.shapes import Tensor


def lora_layers(backbone: Backbone, blocks: Sequence[int]) -> list[str]:
    """The full names of the linear layers inside the given blocks, in the model's order."""
    chosen = {id(backbone.blocks[block]) for block in blocks}
    prefixes = [name for name, module in backbone.model.named_modules() if id(module) in chosen]
    return [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(module, LINEAR) and any(name.startswith(f"{p}.") for p in prefixes)
    ]


@contextmanager
def trainable(
    backbone: Backbone,
    layers: Sequence[str],
    *,
    rank: int,
    alpha: int,
    seed: int,
    projected_out: Mapping[str, Tensor] | None = None,
) -> Iterator[PeftModel]:
    """The backbone with new LoRA modules on the layers; they are taken off again afterwards.

    ``projected_out`` are the input directions of layers that their modules do not read.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers), lora_dropout=0.0, bias="none")
    with torch_seed(seed, "lora"), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        # What PEFT sets by itself for a Conv1D, it says too.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        model = get_peft_model(backbone.model, config)
    try:
        for layer, directions in (projected_out or {}).items():
            module: Any = model.get_submodule(f"base_model.model.{layer}")
            parametrize.register_parametrization(module.lora_A["default"], "weight", Reading(directions))
        yield model
    finally:
        model.unload()
        backbone.model.requires_grad_(False)
        if hasattr(backbone.model, "peft_config"):
            del backbone.model.peft_config


@contextmanager
def untrained(backbone: Backbone) -> Iterator[None]:
    """The backbone without the LoRA modules that are on it."""
    layers = [module for module in backbone.model.modules() if isinstance(module, BaseTunerLayer)]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def lora_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """The trained parameters by name, sorted."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(sorted(found.items()))


def read_out(model: PeftModel, backbone: Backbone, layers: Sequence[str]) -> Adapter:
    """The trained modules as an adapter of the backbone, its card still empty."""
    config: Any = model.peft_config["default"]
    modules = {}
    for layer in layers:
        module: Any = model.get_submodule(f"base_model.model.{layer}")
        modules[layer] = LoraModule(
            lora_A=_copy(module.lora_A["default"].weight),
            lora_B=_copy(module.lora_B["default"].weight),
            scale=config.lora_alpha / config.r,
        )
    return Adapter(modules, BackboneIdentity(backbone.name, backbone.fingerprint), {})


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32).clone()


__all__ = ["lora_layers", "lora_parameters", "read_out", "trainable", "untrained"]
