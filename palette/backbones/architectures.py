"""The linear modules of a model, and those of each block that write to the residual stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from palette.errors import BackboneError
from palette.shapes import Tensor

LINEAR = (nn.Linear, Conv1D)
"""What takes a LoRA. The second, GPT-2's, keeps its weight as [d_in, d_out]."""


def linear_shape(module: nn.Module | None) -> tuple[int, int] | None:
    """The outputs and the inputs of a linear module; None of any other."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    d_out, d_in = (getattr(module, f"{side}_features", None) for side in ("out", "in"))
    return None if d_out is None or d_in is None else (d_out, d_in)


@torch.no_grad()
def find_writers(model: nn.Module, blocks: Sequence[nn.Module], width: int, ids: Tensor) -> list[list[str]]:
    """The names, within each block, of the linears without which the block changes nothing.

    Silence every linear that gives vectors of the stream's width, and each block hands its input on
    as it is. Let them speak again one by one, in the order in which they run: a linear that is heard
    only through a later, silent one (a query projection as wide as the stream) is no writer. No
    module's name is guessed.

    Raises:
        BackboneError: if a block still writes with all of them silent, as fused experts do.
    """
    silent = [
        [name for name, module in block.named_modules() if (linear_shape(module) or (None,))[0] == width]
        for block in blocks
    ]
    order: list[str] = []
    if not _is_identity(model, blocks, silent, ids, order):
        raise BackboneError(
            "weight orthogonalisation needs blocks that write through linear modules only",
            got=f"{type(blocks[0]).__name__}, which writes in another way too",
            remedy="leave weight_orthogonalisation out of search.methods",
        )
    for name in dict.fromkeys(order):
        fewer = [[other for other in names if other != name] for names in silent]
        if _is_identity(model, blocks, fewer, ids, []):
            silent = fewer
    return silent


def _is_identity(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    silent: Sequence[Iterable[str]],
    ids: Tensor,
    order: list[str],
) -> bool:
    """Whether every block hands its input on; notes in ``order`` when each silent linear ran."""
    same: list[bool] = []
    with ExitStack() as stack:
        for block, names in zip(blocks, silent, strict=True):
            for name in names:
                hook = partial(_silence, name, order)
                stack.callback(block.get_submodule(name).register_forward_hook(hook).remove)
            compare = partial(_compare, same)
            stack.callback(block.register_forward_hook(compare, with_kwargs=True).remove)
        model(input_ids=ids, use_cache=False)
    return all(same)


def _silence(name: str, order: list[str], module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    order.append(name)
    return torch.zeros_like(output)


def _compare(same: list[bool], module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    before = args[0] if args else kwargs["hidden_states"]
    after = output[0] if isinstance(output, tuple) else output
    same.append(torch.equal(before, after))
