"""Mounting an adapter on a backbone: forward hooks inside a ``with``, never an edit in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import write_adapter
from palette.backbones.backbone import linear_shape
from palette.errors import AdapterError
from palette.shapes import Tensor


def require_fit(model: torch.nn.Module, adapter: Adapter) -> None:
    """Returns nothing; passes if every module of the adapter fits one of the model, which may be empty.

    Raises:
        AdapterError: if the backbone lacks a module, or a module has another shape.
    """
    for name in adapter.modules:
        _fitting(model, name, adapter.modules[name])


@contextmanager
def mounted(model: torch.nn.Module, *adapters: Adapter) -> Iterator[None]:
    """Adds scale · (x Aᵀ) Bᵀ, computed in float32, to every module of each adapter inside the block.

    All hooks are on inside and none afterwards, whatever happens. The deltas of several adapters add,
    and blocks may be nested.

    Raises:
        AdapterError: if the backbone lacks a module, or a module has another shape.
    """
    fitted = [
        (_fitting(model, name, adapter.modules[name]), adapter.modules[name])
        for adapter in adapters
        for name in adapter.modules
    ]
    with ExitStack() as stack:
        for target, module in fitted:
            stack.callback(target.register_forward_hook(_adding(module, target)).remove)
        yield


def peft_model(model: torch.nn.Module, adapter: Adapter) -> Any:
    """PEFT's model with the adapter on, in evaluation mode; ``model`` is edited in place, as PEFT does."""
    from peft import PeftModel

    with TemporaryDirectory() as folder:
        write_adapter(Path(folder), adapter)
        return PeftModel.from_pretrained(model, folder).eval()


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
