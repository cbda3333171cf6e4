"""Reading and editing the residual stream inside a ``with``: hooks, and edits of rank one.

Sites are numbered like the stream itself: site ``l`` is ``resid_pre`` of block ``l``, which is
``resid_post`` of block ``l − 1``; site 0 is the embedding output and site L the last block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from palette.backbones import Backbone
from palette.backbones.hook_points import on_input, on_output
from palette.backbones.scoring import Batch, forward
from palette.backbones.skipping import skipped
from palette.backbones.writers import Gains, behind
from palette.errors import BackboneError
from palette.shapes import Float, Tensor

Stream = Float[Tensor, "batch position d_model"]
Edit = Callable[[Stream], Stream]


@contextmanager
def edited(blocks: Sequence[nn.Module], edits: Mapping[int, Edit]) -> Iterator[None]:
    """Applies each edit to the residual stream at its site, for every forward pass in the block.

    Raises:
        ValueError: if a site is not between 0 and the number of blocks.
    """
    with ExitStack() as stack:
        for site, edit in sorted(edits.items()):
            stack.callback(_attach(blocks, site, edit).remove)
        yield


@contextmanager
def captured(
    blocks: Sequence[nn.Module], receive: Callable[[int, Stream], None], sites: Iterable[int] | None = None
) -> Iterator[None]:
    """Calls ``receive(site, stream)`` at the sites, by default at every one, for every forward pass.

    Raises:
        BackboneError: if what blocks hand on is no one stream.
    """

    def read(site: int, stream: Float[Tensor, "batch position *width"]) -> Tensor:
        if stream.dim() != 3:
            raise BackboneError(
                "each block must run once at every position, on one residual stream",
                got=f"blocks that hand on {stream.dim() - 2} axes for each position",
                remedy="use another model",
            )
        receive(site, stream)
        return stream

    every = range(len(blocks) + 1) if sites is None else sites
    with edited(blocks, {site: partial(read, site) for site in every}):
        yield


@contextmanager
def block_outputs(blocks: Sequence[nn.Module], sites: Sequence[int]) -> Iterator[dict[int, Stream]]:
    """A mapping that holds, after each forward pass, the stream at the sites asked for."""
    streams: dict[int, Stream] = {}
    with captured(blocks, streams.__setitem__, sites):
        yield streams


def _attach(blocks: Sequence[nn.Module], site: int, edit: Edit) -> RemovableHandle:
    if not 0 <= site <= len(blocks):
        raise ValueError(f"a site must be between 0 and {len(blocks)}, got {site}")
    if site < len(blocks):
        return blocks[site].register_forward_pre_hook(partial(on_input, edit), with_kwargs=True)
    return blocks[site - 1].register_forward_hook(partial(on_output, edit))


EditPlace = tuple[Literal["stream", "writers"], int]
"""The residual stream at a site, or the outputs of the linears that write to it in a block."""


@dataclass(frozen=True, eq=False)
class RankOneEdit:
    """x − (a (x·r) + b) r, for every row of a batch."""

    direction: Float[Tensor, "1 d_model"]
    slope: Float[Tensor, "1"]
    offset: Float[Tensor, "1"]

    def __call__(self, x: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """The edited stream, in its own precision."""
        r = self.direction[0].to(x.device, x.dtype)
        slope, offset = (part.to(x.device, x.dtype) for part in (self.slope, self.offset))
        return x - (slope * (x @ r) + offset).unsqueeze(-1) * r

    def behind(self, gain: Float[Tensor, "d_model"] | None) -> RankOneEdit:
        """The edit of a writer's output that is this edit of the stream, with a norm of this gain between."""
        return self if gain is None else replace(self, direction=behind(self.direction[0], gain).unsqueeze(0))

    def on(self, device: torch.device) -> RankOneEdit:
        """The same edit with its numbers on a device, which no pass has to wait for there."""
        return RankOneEdit(*(part.to(device) for part in (self.direction, self.slope, self.offset)))


Edits = Mapping[EditPlace, RankOneEdit]


def first_block(edits: Edits) -> int:
    """The first block that has to be run: what lies below it does not change."""
    return min((index for _, index in edits), default=0)


@contextmanager
def applied(
    blocks: Sequence[nn.Module],
    writers: Sequence[Sequence[nn.Module]] | None,
    edits: Edits,
    gains: Gains | None = None,
) -> Iterator[None]:
    """Every forward pass in the block is edited; afterwards no hook is left.

    A writer is edited as W − λr(rᵀW) would: its bias is no part of x. Where a norm of gain g stands behind
    it, r is g∘r, of unit length.

    Raises:
        ValueError: if a place does not exist, or the writers of the blocks are not known.
    """
    with ExitStack() as stack:
        for (kind, index), edit in sorted(edits.items(), key=lambda item: item[0]):
            if kind == "stream":
                continue
            if writers is None:
                raise ValueError("edits of writers need the blocks' writers, got none")
            for writer in writers[index]:
                there = edit.behind((gains or {}).get(writer))
                stack.callback(writer.register_forward_hook(partial(_on_writer, there)).remove)
        stream = {index: edit for (kind, index), edit in edits.items() if kind == "stream"}
        stack.enter_context(edited(blocks, stream))
        yield


def _on_writer(edit: RankOneEdit, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return edit(output) if bias is None else edit(output - bias) + bias


def run_block(backbone: Backbone, batch: Batch, index: int, stream: Stream) -> Stream:
    """What one block gives for ``stream``, its input for the batch; no other block is run.

    The library's own forward prepares masks and positions; it ends where the block has spoken.

    Raises:
        BackboneError: if the model's blocks read keys of others.
    """
    if backbone.shares_keys:
        raise BackboneError(
            "a block can be trained alone only where no other block's keys are read",
            got=backbone.model.config.get_text_config().model_type,
            remedy="set internalise.method to another one",
            where=backbone.name,
        )

    def stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    block, values = backbone.blocks[index], backbone.values
    handle = block.register_forward_hook(stop)
    try:
        # Site 0 is what the embedding gives, so that the first block needs no skipping.
        with (
            edited(backbone.blocks, {index: lambda x: stream}),
            skipped(backbone.blocks, index, stream, values),
        ):
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
