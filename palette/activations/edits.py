"""Edits of rank one, x ↦ x − (a (x·r) + b) r, with parameters of their own for every row of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from palette.activations.hooks import Stream, edited
from palette.shapes import Float, Tensor

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
                stack.callback(writer.register_forward_hook(_on_writer(edit)).remove)
        stream = {index: edit for (kind, index), edit in edits.items() if kind == "stream"}
        stack.enter_context(edited(blocks, stream))
        yield


def _on_writer(edit: RankOneEdit) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        bias = getattr(module, "bias", None)
        return edit(output) if bias is None else edit(output - bias) + bias

    return hook
