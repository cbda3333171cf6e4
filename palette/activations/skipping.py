"""What is not run: blocks whose output is known (the layer-prefix cache), positions that nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from palette.activations.hooks import Stream, edited
from palette.backbones import Backbone
from palette.backbones.scoring import Batch, forward


@contextmanager
def skipped(blocks: Sequence[nn.Module], first: int, stream: Stream | None) -> Iterator[None]:
    """Blocks below ``first`` give ``stream`` at once; hooks on them still run, with what they give.

    ``stream`` is the residual stream at site ``first`` of the very batch that is run. The library's
    own forward stays in charge of everything else, so that any architecture may be skipped through.
    """
    known = blocks[:first] if stream is not None else ()
    with _forwarding({block: _gives(stream) for block in known}):
        yield


@contextmanager
def narrowed(modules: Sequence[nn.Module], keep: int) -> Iterator[None]:
    """The modules, which must work on each position apart, run at the last ``keep`` positions only.

    They give zero at the others. ``keep`` of 0 keeps all.
    """
    with _forwarding({module: _at_last(module.forward, keep) for module in modules} if keep else {}):
        yield


@contextmanager
def _forwarding(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """The modules with other ways to run, and their own again afterwards."""
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)


def run_block(backbone: Backbone, batch: Batch, index: int, stream: Stream) -> Stream:
    """What one block gives for ``stream``, its input for the batch; no other block is run.

    The library's own forward prepares masks and positions; it ends where the block has spoken.
    """

    def stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    block = backbone.blocks[index]
    handle = block.register_forward_hook(stop)
    try:
        # Site 0 is what the embedding gives, so that the first block needs no skipping.
        with edited(backbone.blocks, {index: lambda x: stream}), skipped(backbone.blocks, index, stream):
            forward(backbone, batch)
    except _Reached as reached:
        return reached.stream
    finally:
        handle.remove()
    raise RuntimeError(f"block {index} must be run, got a forward pass without it")


class _Reached(Exception):  # noqa: N818 - not an error: how a pass ends early
    """Ends a forward pass at a block's output."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream


@torch.no_grad()
def positionwise(backbone: Backbone) -> list[nn.Module]:
    """The parts of the last block that the last position's logits need at that position only.

    That is its feed-forward. None, where the model itself says otherwise.
    """
    parts = [part for part in backbone.blocks[-1].children() if is_positionwise(part, backbone.width)]
    ids = torch.tensor([backbone.render([{"role": "user", "content": "0"}])]).to(backbone.model.device)
    whole = backbone.model(input_ids=ids, logits_to_keep=1).logits
    with narrowed(parts, 1):
        narrow = backbone.model(input_ids=ids, logits_to_keep=1).logits
    rounding = 30 * torch.finfo(whole.dtype).eps * float(whole.abs().max())
    return parts if torch.allclose(whole, narrow, rtol=0.0, atol=rounding) else []


@torch.no_grad()
def is_positionwise(module: nn.Module, width: int) -> bool:
    """Whether a module with matrices maps each position's vector apart from all others.

    A norm does too, but costs nothing, and attention may read what it gives at every position.
    """
    parameter = next((matrix for matrix in module.parameters() if matrix.dim() > 1), None)
    if parameter is None:
        return False
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, 4, width, generator=generator).to(parameter.device, parameter.dtype)
    try:
        whole, last = module(probe), module(probe[:, -1:].contiguous())
        return bool(whole.shape == probe.shape and torch.allclose(whole[:, -1:], last, rtol=1e-3, atol=1e-5))
    except Exception:  # What needs more than a stream may fail in any way.
        return False


def _at_last(forward: Callable[[Stream], Stream], keep: int) -> Callable[[Stream], Stream]:
    def narrow(stream: Stream) -> Stream:
        # Some modules view what they are given as one matrix, which a mere slice cannot be.
        last = forward(stream[:, -keep:].contiguous())
        return pad(last, (0, 0, stream.shape[1] - last.shape[1], 0))

    return narrow


def _gives(stream: Any) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return stream

    return forward
