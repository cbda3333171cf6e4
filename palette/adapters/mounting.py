"""Mounting an adapter on a backbone: forward hooks inside a ``with``, never an edit in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from palette.adapters.lora import Adapter, LoraModule
from palette.errors import AdapterError
from palette.shapes import Tensor

Hook = Callable[[torch.nn.Module, tuple[Any, ...], Tensor], Tensor]


@contextmanager
def mounted(model: torch.nn.Module, adapter: Adapter) -> Iterator[None]:
    """Adds scale · (x Aᵀ) Bᵀ, computed in float32, to every module of ``adapter`` inside the block.

    All hooks are on inside and none afterwards, whatever happens. Blocks may be nested: the deltas
    of several adapters add.

    Raises:
        AdapterError: if the backbone lacks a module, or a module has another shape.
    """
    targets = {name: fitting(model, name, adapter.modules[name]) for name in adapter.modules}
    handles = []
    try:
        for name, target in targets.items():
            handles.append(target.register_forward_hook(adding(adapter.modules[name], target)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def mounted_all(model: torch.nn.Module, adapters: Sequence[Adapter]) -> Iterator[None]:
    """Several adapters inside one block, whose deltas add; see ``mounted``.

    Raises:
        AdapterError: if one of them does not fit the backbone.
    """
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(mounted(model, adapter))
        yield


def fitting(model: torch.nn.Module, name: str, module: LoraModule) -> torch.nn.Module:
    """The linear module of ``model`` called ``name``, whose shape fits ``module``.

    Raises:
        AdapterError: if there is none, or it has another shape.
    """
    try:
        target = model.get_submodule(name)
    except AttributeError:
        target = None
    shape = (getattr(target, "out_features", None), getattr(target, "in_features", None))
    if target is None or None in shape:
        raise AdapterError(
            "an adapter's modules must be linear modules of the backbone",
            got=f"{'none' if target is None else type(target).__name__} at {name}",
            remedy="mount the adapter on the backbone it was made for",
        )
    if shape != module.shape:
        raise AdapterError(
            f"a delta must have the shape of its module, {shape[0]}×{shape[1]}",
            got=f"{module.shape[0]}×{module.shape[1]} for {name}",
            remedy="mount the adapter on the backbone it was made for",
        )
    return target


def adding(module: LoraModule, target: torch.nn.Module) -> Hook:
    """The forward hook that adds ``module`` to the output of ``target``, on its device."""
    device = next(target.parameters()).device
    down, up = module.lora_A.to(device, torch.float32), module.lora_B.to(device, torch.float32)

    def hook(_: torch.nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        update: Tensor = module.scale * (inputs[0].float() @ down.T @ up.T)
        return output + update.to(output.dtype)

    return hook
