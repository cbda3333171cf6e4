"""What of a forward pass is not run: blocks whose output is known, and positions that others speak for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from palette.backbones.backbone import Backbone
from palette.backbones.scoring import Batch, forward, padded, rounding
from palette.shapes import Bool, Float, Int, Tensor


@contextmanager
def skipped(
    blocks: Sequence[nn.Module],
    first: int,
    stream: Float[Tensor, "batch position d_model"] | None,
    values: Sequence[int] = (),
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


def _at_places(
    forward: Callable[[Tensor], Tensor], places: Places, stream: Float[Tensor, "batch position d_model"]
) -> Tensor:
    # To the module they are one row.
    said = forward(stream.flatten(0, 1)[places.run].unsqueeze(0))
    return said[0][places.speaker]
