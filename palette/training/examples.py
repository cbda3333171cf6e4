"""What a student learns from: token sequences with the backbone's own record of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from palette.activations import block_outputs
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.shapes import Float, Tensor


@dataclass(frozen=True)
class Example:
    """A rendered prompt and a reply with its end token.

    ``taught`` examples are to be answered with the reply; all others must stay as the backbone is. Those
    of the ``floor`` are refusals that no adapter opens; those ``near`` are of the authorised domains.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    taught: bool
    floor: bool = False
    near: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole sequence."""
        return (*self.prompt, *self.reply)


@dataclass(frozen=True)
class Reference:
    """What the bare backbone does on one example: logits of the reply, streams at the edited sites."""

    logits: Float[Tensor, "token vocabulary"]
    streams: Float[Tensor, "site position d_model"]

    @property
    def size(self) -> int:
        """Its memory in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.logits, self.streams))


Bare = Callable[[], AbstractContextManager[None]]
"""Opens a block inside which the backbone is what it was before training."""

Recall = Callable[[Sequence[int]], list[Reference]]
"""Gives what the bare backbone does on some examples, by their indices."""


def recalling(
    backbone: Backbone, examples: Sequence[Example], sites: Sequence[int], most: float, bare: Bare
) -> Recall:
    """What the bare backbone does on examples, worked out when it is first asked for, inside ``bare()``.

    It is kept up to so many GiB; beyond that it is worked out again.
    """
    known: dict[int, Reference] = {}
    room = [most * 2**30]

    def recall(rows: Sequence[int]) -> list[Reference]:
        asked = {row: known[row] for row in rows if row in known}
        if missing := sorted(set(rows) - set(asked)):
            with bare():
                found = references(backbone, [examples[row] for row in missing], sites)
            for row, reference in zip(missing, found, strict=True):
                asked[row] = reference
                room[0] -= reference.size
                if room[0] >= 0:
                    known[row] = reference
        return [asked[row] for row in rows]

    return recall


@torch.no_grad()
def references(backbone: Backbone, examples: Sequence[Example], sites: Sequence[int]) -> list[Reference]:
    """The backbone's record of every example, in one pass."""
    found: list[Reference | None] = [None] * len(examples)
    for batch in batches([e.ids for e in examples], backbone.pad, backbone.model.device):
        longest = max(len(examples[row].reply) for row in batch.rows)
        with block_outputs(backbone.blocks, sites) as streams:
            logits = forward(backbone, batch, longest + 1).float()
        for line, row in enumerate(batch.rows):
            example = examples[row]
            whole, reply = len(example.ids), len(example.reply)
            edited = [streams[site][line, -whole:] for site in sites]
            found[row] = Reference(
                logits=logits[line, -reply - 1 : -1].clone(),
                streams=torch.stack(edited) if edited else logits.new_empty(0, whole, backbone.width),
            )
    return [reference for reference in found if reference is not None]
