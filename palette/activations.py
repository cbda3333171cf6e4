"""Reading and editing the residual stream inside a ``with``: hooks, edits of rank one, and what is not run.

Sites are numbered like the stream itself: site ``l`` is ``resid_pre`` of block ``l``, which is
``resid_post`` of block ``l − 1``; site 0 is the embedding output and site L the last block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from palette.backbones import Backbone
from palette.backbones.scoring import Batch, forward
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
    """Calls ``receive(site, stream)`` at the sites, by default at every one, for every forward pass."""

    def read(site: int, stream: Stream) -> Stream:
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
        return blocks[site].register_forward_pre_hook(partial(_on_input, edit), with_kwargs=True)
    return blocks[site - 1].register_forward_hook(partial(_on_output, edit))


def _on_input(edit: Edit, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        return (edit(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}


def _on_output(edit: Edit, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    # Some decoder layers return the stream alone, some return a tuple that begins with it.
    return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)


EditPlace = tuple[Literal["stream", "writers"], int]
"""The residual stream at a site, or the outputs of the linears that write to it in a block."""


@dataclass(frozen=True, eq=False)
class RankOneEdit:
    """x − (a (x·r) + b) r. One row of parameters serves every row of a batch."""

    direction: Float[Tensor, "row d_model"]
    slope: Float[Tensor, "row"]
    offset: Float[Tensor, "row"]

    def __call__(self, x: Stream) -> Stream:
        """The edited stream, in its own precision."""
        r = self.direction.to(x.device, x.dtype)
        along = torch.einsum("bpd,bd->bp", x, r.expand(x.shape[0], -1))
        slope, offset = (part.to(x.device, x.dtype).unsqueeze(-1) for part in (self.slope, self.offset))
        return x - (slope * along + offset).unsqueeze(-1) * r.unsqueeze(1)


Edits = Mapping[EditPlace, RankOneEdit]


def first_block(edits: Edits) -> int:
    """The first block that has to be run: what lies below it does not change."""
    return min((index for _, index in edits), default=0)


def stacked(trials: Sequence[Edits], rows: int) -> dict[EditPlace, RankOneEdit]:
    """The edits of several trials for one batch that holds ``rows`` rows for each of them in turn."""
    batch = {}
    for place in sorted({place for edits in trials for place in edits}):
        like = next(edits[place] for edits in trials if place in edits)
        null = RankOneEdit(*(torch.zeros_like(parameter) for parameter in vars(like).values()))
        parts = [vars(edits.get(place, null)).values() for edits in trials]
        batch[place] = RankOneEdit(
            *(torch.cat(column).repeat_interleave(rows, 0) for column in zip(*parts, strict=True))
        )
    return batch


@contextmanager
def applied(
    blocks: Sequence[nn.Module], writers: Sequence[Sequence[nn.Module]] | None, edits: Edits
) -> Iterator[None]:
    """Every forward pass in the block is edited; afterwards no hook is left.

    A writer is edited as W − λr(rᵀW) would: its bias is no part of x.

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
                stack.callback(writer.register_forward_hook(partial(_on_writer, edit)).remove)
        stream = {index: edit for (kind, index), edit in edits.items() if kind == "stream"}
        stack.enter_context(edited(blocks, stream))
        yield


def _on_writer(edit: RankOneEdit, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return edit(output) if bias is None else edit(output - bias) + bias


@contextmanager
def skipped(blocks: Sequence[nn.Module], first: int, stream: Stream | None) -> Iterator[None]:
    """Blocks below ``first`` give ``stream`` at once; hooks on them still run, with what they give.

    ``stream`` is the residual stream at site ``first`` of the very batch that is run. The library's
    own forward stays in charge of everything else, so that any architecture may be skipped through.
    """
    known = blocks[:first] if stream is not None else ()
    with _forwarding({block: lambda *args, **kwargs: stream for block in known}):
        yield


@contextmanager
def narrowed(modules: Sequence[nn.Module], keep: int) -> Iterator[None]:
    """The modules, which must work on each position apart, run at the last ``keep`` positions only.

    They give zero at the others. ``keep`` of 0 keeps all.
    """
    with _forwarding({module: partial(_at_last, module.forward, keep) for module in modules} if keep else {}):
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


def _at_last(forward: Callable[[Stream], Stream], keep: int, stream: Stream) -> Stream:
    # Some modules view what they are given as one matrix, which a mere slice cannot be.
    last = forward(stream[:, -keep:].contiguous())
    return pad(last, (0, 0, stream.shape[1] - last.shape[1], 0))
