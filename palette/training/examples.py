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

    ``taught`` examples are to be answered with the reply; all others must stay as the backbone is.
    Those of the ``floor`` may become surer than they were, since no adapter ever opens them.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    taught: bool
    floor: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole sequence."""
        return (*self.prompt, *self.reply)


@dataclass(frozen=True)
class Reference:
    """What the bare backbone does on one example: logits of the reply, streams at the edited sites."""

    logits: Float[Tensor, "token vocabulary"]
    streams: Float[Tensor, "site position d_model"]


Bare = Callable[[], AbstractContextManager[None]]
"""Opens a block inside which the backbone is what it was before training."""

Recall = Callable[[Sequence[int]], list[Reference]]
"""Gives what the bare backbone does on some examples, by their indices."""


def recalling(
    backbone: Backbone, examples: Sequence[Example], sites: Sequence[int], most: float, bare: Bare
) -> Recall:
    """What the bare backbone does on examples: all of it kept, if it takes at most so many GiB.

    Else it is worked out whenever it is asked for, inside ``bare()``, where nothing is mounted.
    """
    vocabulary = int(backbone.model.get_output_embeddings().weight.shape[0])
    numbers = sum(len(e.reply) * vocabulary + len(e.ids) * len(sites) * backbone.width for e in examples)
    if 4 * numbers <= most * 2**30:
        known = references(backbone, examples, sites)
        return lambda rows: [known[row] for row in rows]

    def recall(rows: Sequence[int]) -> list[Reference]:
        with bare():
            return references(backbone, [examples[row] for row in rows], sites)

    return recall


@torch.no_grad()
def references(backbone: Backbone, examples: Sequence[Example], sites: Sequence[int]) -> list[Reference]:
    """The backbone's record of every example, in one pass."""
    found: list[Reference | None] = [None] * len(examples)
    for batch in batches([e.ids for e in examples], backbone.pad, backbone.model.device):
        with block_outputs(backbone.blocks, sites) as streams:
            logits = forward(backbone, batch, 0).float()
        for line, row in enumerate(batch.rows):
            example = examples[row]
            whole, reply = len(example.ids), len(example.reply)
            found[row] = Reference(
                logits=logits[line, -reply - 1 : -1].clone(),
                streams=torch.stack([streams[site][line, -whole:] for site in sites]),
            )
    return [reference for reference in found if reference is not None]
