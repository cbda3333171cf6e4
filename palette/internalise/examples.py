"""What a student learns from: token sequences with the backbone's own record of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from palette.activations import Stream, block_outputs
from palette.backbones import Backbone, Batch, batches, shared
from palette.backbones.cache import bytes_a_token, prefilled, widened, window
from palette.backbones.scoring import KeysValues, forward, padded
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
    backbone: Backbone,
    examples: Sequence[Example],
    sites: Sequence[int],
    most: float,
    bare: Bare,
    head: Tokens = (),
) -> Recall:
    """What the bare backbone does on examples, worked out when it is first asked for, inside ``bare()``.

    It is kept up to so many GiB; beyond that it is worked out again. ``head`` are tokens that all begin with.
    """
    known: dict[int, Reference] = {}
    room = [most * 2**30]

    def recall(rows: Sequence[int]) -> list[Reference]:
        asked = {row: known[row] for row in rows if row in known}
        if missing := sorted(set(rows) - set(asked)):
            with bare():
                found = references(backbone, [examples[row] for row in missing], sites, head)
            for row, reference in zip(missing, found, strict=True):
                asked[row] = reference
                room[0] -= reference.size
                if room[0] >= 0:
                    known[row] = reference
        return [asked[row] for row in rows]

    return recall


@dataclass(frozen=True)
class Beginning:
    """Tokens that all sequences begin with, once they were run: what the others go on from."""

    known: KeysValues
    streams: Float[Tensor, "site shared d_model"]


def shared_beginning(backbone: Backbone, examples: Sequence[Example]) -> Tokens:
    """The first tokens of every prompt, all but its last, as a template with a system prompt has them.

    None where they are few, or where the model bears no cache that can be gone on from.
    """
    prompts = [example.prompt for example in examples]
    count = min(shared(prompts), min(map(len, prompts), default=0) - 1)
    if count < WORTHWHILE or window(backbone) is not None or not bytes_a_token(backbone):
        return ()
    return prompts[0][:count]


def begun(backbone: Backbone, tokens: Tokens, sites: Sequence[int]) -> Beginning | None:
    """The tokens run once, in the model's present state; None where there are none."""
    if not tokens:
        return None
    batch = padded([tokens], [0], backbone.pad, backbone.model.device)
    with block_outputs(backbone.blocks, sites) as streams:
        known = prefilled(backbone, batch, None)[1]
    return Beginning(known, torch.stack([streams[site][0] for site in sites]))


def continued(
    backbone: Backbone, batch: Batch, keep: int, sites: Sequence[int], start: Beginning | None
) -> tuple[Float[Tensor, "batch kept vocabulary"], list[Stream]]:
    """The logits of a batch's last positions and its streams at the sites; it goes on from ``start``."""
    cache = widened(start.known, len(batch.rows)) if start else None
    with block_outputs(backbone.blocks, sites) as streams:
        logits = forward(backbone, batch, keep, cache).float()
    return logits, [streams[site] for site in sites]


def whole_stream(
    lines: Sequence[Float[Tensor, "position d_model"]], width: int, start: Beginning | None
) -> Float[Tensor, "site whole d_model"]:
    """A row's streams without its padding, ``width`` positions, behind those that it goes on from."""
    own = torch.stack([line[-width:] for line in lines])
    return torch.cat([start.streams, own], dim=1) if start else own


@torch.no_grad()
def references(
    backbone: Backbone, examples: Sequence[Example], sites: Sequence[int], head: Tokens = ()
) -> list[Reference]:
    """The backbone's record of every example, in one pass; ``head`` are tokens that all begin with."""
    found: list[Reference | None] = [None] * len(examples)
    start = begun(backbone, head, sites)
    ends = [example.ids[len(head) :] for example in examples]
    for batch in batches(ends, backbone.pad, backbone.model.device):
        longest = max(len(examples[row].reply) for row in batch.rows)
        logits, edited = continued(backbone, batch, longest + 1, sites, start)
        for row, said, *lines in zip(batch.rows, logits, *edited, strict=True):
            width = len(ends[row])
            streams = whole_stream(lines, width, start) if lines else said.new_empty(0, width, backbone.width)
            found[row] = Reference(said[-len(examples[row].reply) - 1 : -1].clone(), streams)
    return [reference for reference in found if reference is not None]
