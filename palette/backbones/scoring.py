"""Forward passes over many prompts: left-padded, length-sorted, in the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import DynamicCache

from palette.backbones.backbone import PICTURED, Backbone
from palette.shapes import Bool, Float, Int, Tensor
from palette.threads import beside, lanes

BATCH_TOKENS, CPU_TOKENS = 8192, 768
"""How many tokens, padding among them, a batch holds at most, and on a CPU, where caches are small."""

ROWS = 64
"""Replies that a lane reads at once, in batches of like length."""


@dataclass(frozen=True)
class Batch:
    """Left-padded token ids, their mask, and which rows of the caller's list they are."""

    rows: list[int]
    ids: Int[Tensor, "batch position"]
    mask: Int[Tensor, "batch position"]


def batches(
    sequences: Sequence[Sequence[int]], pad: int | None, device: torch.device, tokens: int | None = None
) -> Iterator[Batch]:
    """Batches of token sequences, longest first, so that the largest batch is met at once.

    Without a token to ``pad`` with, the sequences of each are of one length.
    """
    tokens = tokens or (CPU_TOKENS if device.type == "cpu" else BATCH_TOKENS)
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i))
    start = 0
    while start < len(order):
        width = len(sequences[order[start]])
        rows = order[start : start + max(1, tokens // max(1, width))]
        if pad is None:
            rows = [row for row in rows if len(sequences[row]) == width]
        yield padded(sequences, rows, pad, device)
        start += len(rows)


def padded(
    sequences: Sequence[Sequence[int]], rows: Sequence[int], pad: int | None, device: torch.device
) -> Batch:
    """The batch of these rows, as wide as the longest of them."""
    width = max(len(sequences[row]) for row in rows)
    ids = torch.full((len(rows), width), pad or 0)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for line, row in enumerate(rows):
        length = len(sequences[row])
        ids[line, width - length :] = torch.tensor(sequences[row], dtype=torch.long)
        mask[line, width - length :] = 1
    return Batch(list(rows), ids.to(device), mask.to(device))


@torch.no_grad()
def next_token_logits(
    backbone: Backbone, prompts: Sequence[Sequence[int]]
) -> Float[Tensor, "prompt vocabulary"]:
    """The logits of the token after each prompt."""
    by_row: list[Tensor] = [torch.empty(0)] * len(prompts)
    for batch in batches(prompts, backbone.pad, backbone.model.device):
        logits = forward(backbone, batch, 1)[:, -1].float()
        for line, row in enumerate(batch.rows):
            by_row[row] = logits[line]
    return torch.stack(by_row)


@torch.no_grad()
def reply_logits(
    backbone: Backbone, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[Float[Tensor, "_token vocabulary"]]:
    """For each prompt, the logits with which the model would say each token of the reply, teacher-forced."""
    by_row: list[Tensor] = [torch.empty(0)] * len(prompts)
    for row, logits in _replied(backbone, prompts, replies):
        # Cloned, so that one kept row does not keep its whole batch in memory.
        by_row[row] = logits.float().clone()
    return by_row


def reply_likelihoods(
    backbone: Backbone, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[float]:
    """The mean log-likelihood of each reply's tokens after its prompt, in nats a token."""

    @torch.no_grad()
    def found(part: slice) -> list[float]:
        means = [0.0] * len(replies[part])
        for row, logits in _replied(backbone, prompts[part], replies[part]):
            # Row by row: those of many replies at once would not fit where the vocabulary is large.
            tokens = torch.tensor(replies[part][row], device=logits.device).unsqueeze(-1)
            means[row] = float(logits.float().log_softmax(-1).gather(-1, tokens).mean())
        return means

    parts = (slice(start, start + ROWS) for start in range(0, len(replies), ROWS))
    pieces = (partial(found, part) for part in parts)
    return [value for each in beside(pieces, lanes(backbone.model.device)) for value in each]


def _replied(
    backbone: Backbone, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Float[Tensor, "_token vocabulary"]]]:
    """Each row and the logits of its reply's tokens, which are gone when the next batch is asked for."""
    first = backbone.weightless
    if (
        backbone.releases
        and first is not None
        and any(first <= token < PICTURED for p in prompts for token in p)
    ):
        yield from _released(backbone, prompts, replies)
        return
    whole = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    for batch in batches(whole, backbone.pad, backbone.model.device):
        longest = max(len(replies[row]) for row in batch.rows)
        logits = forward(backbone, batch, longest + 1)
        for line, row in enumerate(batch.rows):
            yield row, logits[line, logits.shape[1] - 1 - len(replies[row]) : -1]


def _released(
    backbone: Backbone, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Float[Tensor, "_token vocabulary"]]]:
    """The same in two passes, prompts and then replies, which see of a prompt what is not released."""
    for batch in batches(prompts, backbone.pad, backbone.model.device):
        cache = DynamicCache()
        first = forward(backbone, batch, 1, cache)
        reply_batch = padded(replies, batch.rows, backbone.pad, backbone.model.device)
        rest = first[:, :0]
        if reply_batch.ids.shape[1]:
            seen = seen_by_replies(backbone, marked(backbone, batch))
            rest = forward(backbone, reply_batch, 0, cache, seen)
        for line, row in enumerate(batch.rows):
            length = len(replies[row])
            yield row, torch.cat([first[line], rest[line, rest.shape[1] - length :]])[:length]


def rounding(logits: Float[Tensor, "*row vocabulary"]) -> float:
    """By how much logits may differ between two orders of the same sums: thirty times the last bit.

    Those that a model says it never gives, as Chameleon of its pictures' tokens, are no sums.
    """
    known, sizes = torch.finfo(logits.dtype), logits.abs()
    return 30 * known.eps * float(sizes.where(sizes < known.max / 2, 0).max())


Cache = DynamicCache
KeysValues = Sequence[tuple[Float[Tensor, "batch _head past _d"], Float[Tensor, "batch _head past _d"]]]
"""The attention keys and values of tokens that were run before, layer by layer; layers may differ."""


def cache_of(known: KeysValues) -> DynamicCache:
    """A cache that holds the keys and values of every layer, to be gone on from."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(known):
        cache.update(keys, values, layer)
    return cache


def held_by(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """The keys and values that a cache holds, layer by layer; null ones for layers that were not run."""
    none = torch.empty(0)
    layers = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    return [(none if k is None else k, none if v is None else v) for k, v in layers]


def forward(
    backbone: Backbone,
    batch: Batch,
    keep: int = 1,
    cache: DynamicCache | None = None,
    before: Int[Tensor, "batch past"] | None = None,
) -> Float[Tensor, "row kept vocabulary"]:
    """The logits of a batch's last ``keep`` positions; 0 keeps all.

    With a ``cache`` the batch goes on from what it holds, and its own keys and values are added.
    ``before`` is the mask of the tokens that it holds (``marked``), if some of them are padding.
    """
    mask = marked(backbone, batch)
    if before is None:
        past = cache.get_seq_length() if cache is not None else 0
        before = mask.new_ones(len(mask), past)
    # Where blocks share keys, the library would run some of them at the positions kept alone, and no site
    # but theirs would be read or edited.
    with _heading(backbone, lambda s: s[:, -keep:]) if backbone.shares_keys and keep else nullcontext():
        logits: Tensor = backbone.model(
            input_ids=batch.ids,
            attention_mask=torch.cat([before, mask], dim=1).clamp(max=1),
            **told(backbone, batch.ids, mask, before),
            past_key_values=cache,
            logits_to_keep=0 if backbone.shares_keys else keep,
            use_cache=cache is not None,
        ).logits
    return logits


def told(
    backbone: Backbone,
    ids: Int[Tensor, "batch position"],
    mask: Int[Tensor, "batch position"],
    before: Int[Tensor, "batch past"],
) -> dict[str, Tensor]:
    """What the model is told of a batch behind what stands ``before`` it: positions, and what sees what."""
    flat = positions(mask == 1, (before == 1).sum(1, keepdim=True))
    if backbone.sight is None:
        return {"position_ids": flat}
    return backbone.sight.arguments(backbone.model, ids, flat, before)


@contextmanager
def _heading(backbone: Backbone, chosen: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside it, the head is given what is ``chosen`` of its stream alone."""

    def cut(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (chosen(args[0]), *args[1:])

    handle = backbone.model.get_output_embeddings().register_forward_pre_hook(cut, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def telling(backbone: Backbone, places: Bool[Tensor, "batch kept"]) -> AbstractContextManager[None]:
    """Inside it, logits are those of these of the kept positions alone, [1, place, vocabulary], row by row.

    The vocabulary is by far the widest that a pass works out, and gradients of all positions as wide. The
    head is the model's own, and one pass may run at a time.
    """
    return _heading(backbone, lambda stream: stream[:, -places.shape[1] :][places].unsqueeze(0))


def marked(backbone: Backbone, batch: Batch) -> Int[Tensor, "batch position"]:
    """A batch's mask, in which tokens that are read but take no position are 2, and those of pictures 3."""
    mask, first = batch.mask, backbone.weightless
    if first is not None:
        mask = torch.where((batch.ids >= first) & (batch.ids < PICTURED), 2 * mask, mask)
    if backbone.sight is not None:
        mask = torch.where(backbone.sight.placeless(batch.ids), 3 * mask, mask)
    return mask


def seen_by_replies(backbone: Backbone, mask: Int[Tensor, "batch past"]) -> Int[Tensor, "batch past"]:
    """The mask (``marked``) of what prompts hold, of what their replies see of it."""
    return mask.where(mask != 2, 0) if backbone.releases else mask


def positions(
    places: Bool[Tensor, "batch position"], before: Int[Tensor, "batch 1"]
) -> Int[Tensor, "batch position"]:
    """Position ids that start at 0 at each row's first token that takes one, ``before`` of them held already.

    A token that takes none has the position of the one before it.
    """
    return (places.cumsum(-1) - 1 + before).clamp(min=0)
