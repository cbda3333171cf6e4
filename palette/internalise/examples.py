"""What a student learns from: token sequences with the backbone's own record of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from palette.activations import Stream, block_outputs
from palette.backbones import Backbone, Batch, batches
from palette.backbones.cache import Memo, Prefix, bytes_a_token, continued, read_prefix, shared_prefix, window
from palette.shapes import Float, Tensor

Tokens = tuple[int, ...]

WORTHWHILE = 8
"""Shared tokens from which on a pass of their own was measured to cost less than one for each row."""


@dataclass(frozen=True)
class Example:
    """A rendered prompt and a reply with its end token.

    ``taught`` examples are to be answered with the reply; all others must stay as the backbone is. Those
    of the ``floor`` are refusals that no adapter opens; those ``near`` are of the authorised domains.
    """

    prompt: Tokens
    reply: Tokens
    taught: bool
    floor: bool = False
    near: bool = False

    @property
    def ids(self) -> Tokens:
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
        return self.logits.nbytes + self.streams.nbytes


Bare = Callable[[], AbstractContextManager[None]]
"""Opens a block inside which the backbone is what it was before training."""

Recall = Callable[[Sequence[int]], list[Reference]]
"""Gives what the bare backbone does on some examples, by their indices."""


def recalling(
    backbone: Backbone,
    examples: Sequence[Example],
    sites: Sequence[int],
    most: float,
    bare: Bare,
    shared: Tokens = (),
) -> Recall:
    """What the bare backbone does on examples, worked out when it is first asked for, inside ``bare()``.

    It is kept up to ``most`` GiB. All examples begin with the ``shared`` tokens.
    """

    def work(rows: Sequence[int]) -> list[Reference]:
        with bare():
            return references(backbone, [examples[row] for row in rows], sites, shared)

    return Memo(work, lambda reference: reference.size, most)


@dataclass(frozen=True)
class SharedPrefix:
    """What all sequences begin with, read once, and its streams at the edited sites."""

    prefix: Prefix
    streams: Float[Tensor, "site shared d_model"]


def shared_tokens(backbone: Backbone, examples: Sequence[Example]) -> Tokens:
    """The first tokens of every prompt, all but its last, as a template with a system prompt has them.

    None where they are few, or where the model bears no cache that can be gone on from.
    """
    tokens = shared_prefix([example.prompt for example in examples], WORTHWHILE)
    return tokens if tokens and window(backbone) is None and bytes_a_token(backbone) else ()


def read_shared(backbone: Backbone, tokens: Tokens, sites: Sequence[int]) -> SharedPrefix | None:
    """The tokens read once, in the model's present state; None where there are none."""
    if not tokens:
        return None
    with block_outputs(backbone.blocks, sites) as streams:
        prefix = read_prefix(backbone, tokens)
    return SharedPrefix(prefix, torch.stack([streams[site][0] for site in sites]))


def outputs(
    backbone: Backbone, batch: Batch, keep: int, sites: Sequence[int], start: SharedPrefix | None
) -> tuple[Float[Tensor, "batch kept vocabulary"], list[Stream]]:
    """The logits of a batch's last positions and its streams at the sites; it goes on from ``start``."""
    with block_outputs(backbone.blocks, sites) as streams:
        logits = continued(backbone, batch, keep, start.prefix if start else None).float()
    return logits, [streams[site] for site in sites]


@torch.no_grad()
def references(
    backbone: Backbone, examples: Sequence[Example], sites: Sequence[int], shared: Tokens = ()
) -> list[Reference]:
    """The backbone's record of every example, in one pass; all begin with the ``shared`` tokens."""
    known: dict[int, Reference] = {}
    start = read_shared(backbone, shared, sites)
    ends = [example.ids[len(shared) :] for example in examples]
    for batch in batches(ends, backbone.pad, backbone.model.device):
        longest = max(len(examples[row].reply) for row in batch.rows)
        logits, edited = outputs(backbone, batch, longest + 1, sites, start)
        for row, said, *lines in zip(batch.rows, logits, *edited, strict=True):
            width = len(ends[row])
            streams = said.new_empty(0, width, backbone.width)
            if lines:
                # Without the row's padding, behind what it goes on from.
                streams = torch.stack([line[-width:] for line in lines])
                streams = torch.cat([start.streams, streams], dim=1) if start else streams
            known[row] = Reference(said[-len(examples[row].reply) - 1 : -1].clone(), streams)
    return [known[row] for row in range(len(examples))]
