"""Mounting an adapter on a backbone: forward hooks inside a ``with``, never an edit in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any

import torch

from palette.adapters.layouts import EXPERT_NAME, WEIGHT
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import write_adapter
from palette.backbones.architectures import linear_shape
from palette.errors import AdapterError
from palette.shapes import Tensor


def require_fit(model: torch.nn.Module, adapter: Adapter) -> None:
    """Returns nothing; passes if every module of the adapter fits one of the model, which may be empty.

    Raises:
        AdapterError: if the backbone lacks a module, or a module has another shape.
    """
    _linear(model, adapter)
    _fused(model, adapter)


@contextmanager
def mounted(model: torch.nn.Module, *adapters: Adapter) -> Iterator[None]:
    """Adds scale · (x Aᵀ) Bᵀ, computed in float32, to every module of each adapter inside the block.

    Fused experts run with W + ΔW, which is made for each pass, as PEFT does.

    All hooks are on inside and none afterwards, whatever happens. The deltas of several adapters add,
    and blocks may be nested.

    Raises:
        AdapterError: if the backbone lacks a module, or a module has another shape.
    """
    fitted = [each for adapter in adapters for each in _linear(model, adapter)]
    fused = [stack for adapter in adapters for stack in _fused(model, adapter)]
    with ExitStack() as stack:
        for target, module in fitted:
            stack.callback(target.register_forward_hook(_adding(module, target)).remove)
        for each in fused:
            stack.enter_context(_with_experts(*each))
        yield


def peft_model(model: torch.nn.Module, adapter: Adapter) -> Any:
    """PEFT's model with the adapter on, in evaluation mode; ``model`` is edited in place, as PEFT does."""
    from peft import PeftModel

    with TemporaryDirectory() as folder:
        write_adapter(Path(folder), adapter)
        return PeftModel.from_pretrained(model, folder).eval()


def _linear(model: torch.nn.Module, adapter: Adapter) -> list[tuple[torch.nn.Module, LoraModule]]:
    """The linear modules that are adapted, each with what is added to it."""
    return [
        (_fitting(model, name.removesuffix(WEIGHT), module), module)
        for name, module in adapter.modules.items()
        if not EXPERT_NAME.fullmatch(name)
    ]


def _fused(model: torch.nn.Module, adapter: Adapter) -> list[tuple[torch.nn.Module, str, list[LoraModule]]]:
    """For each parameter of fused experts that is adapted, its module, its name there, and all experts."""
    found: dict[str, dict[int, LoraModule]] = {}
    for name in adapter.modules:
        if match := EXPERT_NAME.fullmatch(name):
            found.setdefault(match[1], {})[int(match[2])] = adapter.modules[name]
    fitted, parameters = [], dict(model.named_parameters()) if found else {}
    for path, experts in found.items():
        owner, leaf = path.rpartition(".")[::2]
        parameter = parameters.get(path)
        shape = None if parameter is None else tuple(parameter.shape)
        target = model.get_submodule(owner) if shape else torch.nn.Module()
        d_out, d_in = experts[min(experts)].shape
        if shape != (len(experts), *((d_in, d_out) if _turned(target) else (d_out, d_in))):
            raise AdapterError(
                "an adapter's fused experts must be a parameter [expert, ·, ·] of the backbone",
                got=f"{len(experts)} experts {d_out}×{d_in} for {shape or 'nothing'} at {path}",
                remedy="mount the adapter on the backbone it was made for",
            )
        fitted.append((target, leaf, [experts[index] for index in range(len(experts))]))
    return fitted


def _turned(owner: torch.nn.Module) -> bool:
    """Whether experts lie as [d_in, d_out], by the library's word."""
    return bool(getattr(owner, "is_transposed", False))


@contextmanager
def _with_experts(owner: torch.nn.Module, leaf: str, experts: list[LoraModule]) -> Iterator[None]:
    """Runs fused experts with W + ΔW, in a copy of their module that shares all else with it.

    The module itself keeps W, for other threads too that run it at the same time.
    """
    before = vars(owner).get("forward")
    plain: Any = owner.forward
    inner = plain.__func__

    def run(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        weight = getattr(module, leaf)
        down, up = (
            torch.stack([getattr(each, side) for each in experts]).to(weight.device, torch.float32)
            for side in ("lora_A", "lora_B")
        )
        scale = torch.tensor([each.scale for each in experts], device=weight.device)
        delta = scale.view(-1, 1, 1) * (up @ down)
        delta = delta.transpose(1, 2) if _turned(module) else delta
        shadow = copy(module)
        shadow._parameters = {**module._parameters, leaf: weight + delta.to(weight.dtype)}
        return inner(shadow, *args, **kwargs)

    owner.forward = MethodType(run, owner)
    try:
        yield
    finally:
        vars(owner).pop("forward")
        if before is not None:
            owner.forward = before


def _fitting(model: torch.nn.Module, name: str, module: LoraModule) -> torch.nn.Module:
    """The linear module of ``model`` called ``name``, whose shape fits ``module``."""
    try:
        target = model.get_submodule(name)
    except AttributeError:
        target = None
    shape = linear_shape(target)
    remedy = "mount the adapter on the backbone it was made for"
    if target is None or shape is None:
        raise AdapterError(
            "an adapter's modules must be linear modules of the backbone",
            got=f"{'none' if target is None else type(target).__name__} at {name}",
            remedy=remedy,
        )
    if shape != module.shape:
        raise AdapterError(
            f"a delta must have the shape of its module, {shape[0]}×{shape[1]}",
            got=f"{module.shape[0]}×{module.shape[1]} for {name}",
            remedy=remedy,
        )
    return target


def _adding(module: LoraModule, target: torch.nn.Module) -> Callable[..., Tensor]:
    """The forward hook that adds ``module`` to the output of ``target``, on its device."""
    device = next(target.parameters()).device
    # What is fetched when it runs lies nowhere yet.
    place = torch.device("cpu") if device.type == "meta" else device
    down, up = module.lora_A.to(place, torch.float32), module.lora_B.to(place, torch.float32)

    def hook(_: torch.nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        nonlocal down, up
        down, up = down.to(output.device), up.to(output.device)
        update: Tensor = module.scale * (inputs[0].float() @ down.T @ up.T)
        return output + update.to(output.dtype)

    return hook
