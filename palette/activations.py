"""Reading and editing the residual stream inside a ``with``: hooks, edits of rank one, and what is not run.

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
from palette.backbones.scoring import Batch, forward, padded, rounding
from palette.backbones.writers import Gains, behind
from palette.errors import BackboneError
from palette.shapes import Bool, Float, Int, Tensor

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


@contextmanager
def skipped(
    blocks: Sequence[nn.Module], first: int, stream: Stream | None, values: Sequence[int] = ()
) -> Iterator[None]:
    """Blocks below ``first`` give ``stream`` at once; hooks on them still run, with what they give.

    ``stream`` is the residual stream at site ``first`` of the very batch that is run, and ``values`` how
    many each block gives (``Backbone.values``), all else of which is None. The library's own forward stays
    in charge of everything else, so that any architecture may be skipped through.
    """

    def given(count: int) -> Any:
        return (stream, *[None] * (count - 1)) if count else stream

    known = blocks[:first] if stream is not None else ()
    counts = [*values[:first], *[0] * (first - len(values))]
    with _forwarding(
        {
            block: lambda *args, count=count, **kwargs: given(count)
            for block, count in zip(known, counts, strict=False)
        }
    ):
        yield


@dataclass(frozen=True)
class Places:
    """The positions of a batch at which a module is run, and which of them speaks for each position."""

    run: Int[Tensor, "run"]
    """Places in the batch's rows, one row after the other."""
    speaker: Int[Tensor, "row position"]
    """Which of ``run``; the first of them where no position asked for stands."""


def beginnings(batch: Batch) -> Int[Tensor, "row position"]:
    """A number for the tokens up to each position of a batch: positions that begin alike have the same.

    A causal model's stream is the same there, so that one of them can speak for all.
    """
    known: dict[tuple[int, int], int] = {}
    # Not on the batch's device: on an accelerator each number would be a launch of its own.
    numbers = torch.zeros(batch.ids.shape, dtype=torch.long)
    for row, ids, mask in zip(numbers, batch.ids.tolist(), batch.mask.tolist(), strict=True):
        number = -1
        for place in (place for place, real in enumerate(mask) if real):
            number = known.setdefault((number, ids[place]), len(known))
            row[place] = number
    return numbers.to(batch.ids.device)


def distinct(numbers: Int[Tensor, "row position"], wanted: Bool[Tensor, "row position"]) -> Places:
    """Of the positions that are wanted, the first of each number."""
    _, which = numbers[wanted].unique(return_inverse=True)
    at = wanted.flatten().nonzero()[:, 0]
    run = at.new_full((int(which.max()) + 1,), wanted.numel()).scatter_reduce(0, which, at, "amin")
    return Places(run, torch.zeros_like(numbers).masked_scatter_(wanted, which))


def placed(
    parts: Sequence[Sequence[nn.Module]],
    numbers: Int[Tensor, "row position"],
    real: Bool[Tensor, "row position"],
    read: Bool[Tensor, "row position"],
    keep: int,
) -> dict[nn.Module, Places]:
    """Where each of the parts (``positionwise``) has to be run for the logits that are read.

    That is at every ``real`` position, and in the last block and the head at those ``read``; the head is
    given each row's last ``keep`` positions. Positions of one number are run once.
    """
    *earlier, last, head = parts
    return {
        **dict.fromkeys((part for each in earlier for part in each), distinct(numbers, real)),
        **dict.fromkeys(last, distinct(numbers, read)),
        **dict.fromkeys(head, distinct(numbers[:, -keep:], read[:, -keep:])),
    }


@contextmanager
def narrowed(places: Mapping[nn.Module, Places]) -> Iterator[None]:
    """The modules, which must work on each position apart, run at their places only.

    They give what the speaker of a position says there.
    """
    with _forwarding({module: partial(_at_places, module.forward, each) for module, each in places.items()}):
        yield


@contextmanager
def _forwarding(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """The modules with other ways to run, and their own again afterwards."""
    # What fetches weights from the disk, or trains, has given a module a way of its own before.
    own = {module: module.__dict__["forward"] for module in forwards if "forward" in module.__dict__}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)
        for module, forward in own.items():
            module.forward = forward


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


@torch.no_grad()
def positionwise(backbone: Backbone) -> list[list[nn.Module]]:
    """The parts of each block, and after them the head, that work on each position apart.

    Of a block these are its feed-forwards. None at all, where the model's last logits say otherwise.
    """
    head = backbone.model.get_output_embeddings()
    parts = [
        [part for part in block.children() if is_positionwise(part, backbone.width)]
        for block in backbone.blocks
    ]
    parts.append([] if head is None else [head])
    asked = [backbone.render([{"role": "user", "content": content}]) for content in ("0", "0 1")]
    batch = padded(asked, range(len(asked)), backbone.pad, backbone.model.device)
    last = torch.zeros_like(batch.mask, dtype=torch.bool)
    last[:, -1] = True
    whole = forward(backbone, batch)
    with narrowed(placed(parts, beginnings(batch), batch.mask == 1, last, 1)):
        narrow = forward(backbone, batch)
    same = torch.allclose(whole, narrow, rtol=0.0, atol=rounding(whole))
    return parts if same else [[] for _ in parts]


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
        same = torch.allclose(whole[:, -1:], last, rtol=0.0, atol=rounding(whole))
        return bool(whole.shape == probe.shape and same)
    except Exception:  # What needs more than a stream may fail in any way.
        return False


def _at_places(forward: Callable[[Stream], Tensor], places: Places, stream: Stream) -> Tensor:
    # To the module they are one row.
    said = forward(stream.flatten(0, 1)[places.run].unsqueeze(0))
    return said[0][places.speaker]
