"""What writes to the residual stream: the linears and fused experts of each block, and norms behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from palette.backbones.architectures import architecture, fused_experts, linear_shape
from palette.errors import BackboneError
from palette.shapes import Float, Tensor

NEEDED = "weight orthogonalisation needs blocks that write through linear modules only"
REMEDY = "leave weight_orthogonalisation out of search.methods"
LEFT = 1e-3
"""The share of what a block adds that may lie along a direction that is taken from its writers: rounding."""

Gains = dict[nn.Module, Float[Tensor, "d_model"]]
"""What each number of a writer's output is multiplied by behind its norm, by writer, up to one factor."""


def refuse_passing(config: PretrainedConfig) -> None:
    """Returns unless the table of architectures says that blocks have more than writers.

    Raises:
        BackboneError: if it does.
    """
    if passing := architecture(config).passing:
        raise BackboneError(
            NEEDED, got=f"{config.get_text_config().model_type}, with {passing}", remedy=REMEDY
        )


@torch.no_grad()
def find_writers(model: nn.Module, blocks: Sequence[nn.Module], width: int, ids: Tensor) -> list[list[str]]:
    """The names, within each block, of the modules without which the block changes nothing.

    They are found among all linears that give vectors of the stream's width and all fused experts. No
    module's name is guessed.

    Raises:
        BackboneError: if a block still writes with all of them silent.
    """
    every = [
        [name for name, module in block.named_modules() if _may_write(module, width)] for block in blocks
    ]
    order: list[str] = []
    if changing(model, blocks, every, ids, order):
        raise BackboneError(
            NEEDED, got=f"{type(blocks[0]).__name__}, which writes in another way too", remedy=REMEDY
        )
    return needed(model, blocks, every, ids, order)


@torch.no_grad()
def needed(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    every: Sequence[Sequence[str]],
    ids: Tensor,
    order: Sequence[str],
) -> list[list[str]]:
    """Of modules with which silent no block changes anything, those without which that is not so.

    They speak again one by one, in the ``order`` in which ``changing`` found them to run: one that is heard
    only through a later, silent one (a query projection as wide as the stream) is not needed.
    """
    silent = [list(names) for names in every]
    for name in dict.fromkeys(order):
        fewer = [[other for other in names if other != name] for names in silent]
        if not changing(model, blocks, fewer, ids):
            silent = fewer
    return silent


def _may_write(module: nn.Module, width: int) -> bool:
    shape = linear_shape(module)
    if shape is not None:
        return shape[0] == width
    # With a bias of their own, an expert's output is more than a product.
    return bool(fused_experts(module)) and not any("bias" in name for name, _ in module.named_parameters())


@torch.no_grad()
def gains_behind(
    model: nn.Module, blocks: Sequence[nn.Module], writers: Sequence[Sequence[nn.Module]], ids: Tensor
) -> Gains:
    """The gain g of the RMSNorm behind each writer that has one, as post-norm blocks have.

    A direction r of the stream is g∘r of such a writer's output.

    Raises:
        BackboneError: if with a direction taken from all writers so, blocks still add some of it.
    """
    given: dict[nn.Module, Tensor] = {}
    norms: dict[nn.Module, nn.Module] = {}
    every = [writer for several in writers for writer in several]

    def note(writer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        given[writer] = output

    def match(norm: nn.Module, args: tuple[Any, ...]) -> None:
        norms.update(
            (writer, norm) for writer, output in given.items() if args[0].data_ptr() == output.data_ptr()
        )

    with ExitStack() as stack:
        for writer in every:
            stack.callback(writer.register_forward_hook(note).remove)
        for module in (module for block in blocks for module in block.modules()):
            if "norm" in type(module).__name__.lower():
                stack.callback(module.register_forward_pre_hook(match).remove)
        model(input_ids=ids, use_cache=False)
    # What an RMSNorm makes of ones is its gain, up to one factor.
    gains = {writer: norm(torch.ones_like(given[writer])).flatten(0, -2)[0] for writer, norm in norms.items()}
    _require_gone(model, blocks, every, gains, ids)
    return gains


def _require_gone(
    model: nn.Module, blocks: Sequence[nn.Module], writers: Sequence[nn.Module], gains: Gains, ids: Tensor
) -> None:
    """Returns where no block adds anything along a direction that is taken from its writers' outputs."""
    left: list[float] = []

    def without(writer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        r = behind(direction(output), gains.get(writer))
        return output - (output @ r).unsqueeze(-1) * r

    def compare(block: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        before, after = _streams(args, kwargs, output)
        added = after.float() - before.float()
        left.append(float((added @ direction(added)).norm() / added.norm().clamp(min=1e-12)))

    with ExitStack() as stack:
        for writer in writers:
            stack.callback(writer.register_forward_hook(without).remove)
        for block in blocks:
            stack.callback(block.register_forward_hook(compare, with_kwargs=True).remove)
        model(input_ids=ids, use_cache=False)
    precision = next(model.parameters()).dtype
    if max(left) > max(LEFT, 4 * torch.finfo(precision).eps):
        raise BackboneError(
            "weight orthogonalisation needs writers that reach the stream as they are, or by one RMSNorm",
            got=f"{type(blocks[0]).__name__}, which adds {max(left):.0%} along what was taken out",
            remedy=REMEDY,
        )


def direction(like: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "d_model"]:
    """Some unit direction, the same each time."""
    drawn = torch.randn(like.shape[-1], generator=torch.Generator().manual_seed(0)).to(like)
    unit: Tensor = drawn / drawn.norm()
    return unit


def behind(r: Float[Tensor, "d_model"], gain: Float[Tensor, "d_model"] | None) -> Float[Tensor, "d_model"]:
    """What a unit direction of the stream is of the output of a writer with this gain behind it."""
    if gain is None:
        return r
    scaled = gain.to(r) * r
    found: Tensor = scaled / scaled.norm().clamp(min=1e-12)
    return found


@torch.no_grad()
def changing(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    silent: Sequence[Iterable[str]],
    ids: Tensor,
    order: list[str] | None = None,
) -> list[int]:
    """The blocks that do not hand their input on as it is while modules of theirs are silent.

    Notes in ``order`` when each of these ran.
    """
    found: list[int] = []
    with ExitStack() as stack:
        for index, (block, names) in enumerate(zip(blocks, silent, strict=True)):
            for name in names:
                hook = partial(_silence, name, [] if order is None else order)
                stack.callback(block.get_submodule(name).register_forward_hook(hook).remove)
            compare = partial(_compare, found, index)
            stack.callback(block.register_forward_hook(compare, with_kwargs=True).remove)
        model(input_ids=ids, use_cache=False)
    return found


def _silence(name: str, order: list[str], module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    order.append(name)
    if isinstance(output, tuple):
        return torch.zeros_like(output[0]), *output[1:]
    return torch.zeros_like(output)


def _compare(found: list[int], index: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    if not torch.equal(*_streams(args, kwargs, output)):
        found.append(index)


def _streams(args: Any, kwargs: dict[str, Any], output: Any) -> tuple[Tensor, Tensor]:
    """What a block was given, and what it gave."""
    before = args[0] if args else kwargs["hidden_states"]
    return before, output[0] if isinstance(output, tuple) else output
