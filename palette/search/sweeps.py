"""A fixed panel of prompts and replies, run again and again under other interventions, nothing twice.

Every saving is exact: what is not computed is known already.

- layer prefix: below the first edited block the stream is the backbone's, kept from its first run;
- template prefix: tokens that all prompts begin with are run once a trial, as a batch of one;
- beginnings: what works on each position apart is run once for all rows that begin alike, and on no padding;
- last block: there, it is run at those positions only whose logits are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest

import torch
from torch import nn

from palette.activations import Edits, RankOneEdit, captured, first_block
from palette.backbones import Backbone, Batch, batches, reply_logits
from palette.backbones.cache import bytes_a_token, same_logits, window
from palette.backbones.prefixes import shared_prefix, widened
from palette.backbones.scoring import BATCH_TOKENS, Cache, KeysValues, cache_of, forward, held_by, marked
from palette.backbones.skipping import Places, beginnings, narrowed, placed, positionwise, skipped
from palette.directions import editing
from palette.search.settings import Caching
from palette.shapes import Float, Int, Tensor

Tokens = tuple[int, ...]

PASS_TOKENS = 512
"""Tokens of a pass on a CPU, fewer than of other batches: trials meet the same rows again and again."""
LEAST_PREFIX = 4
"""A shared template prefix shorter than this costs more to run apart than it saves."""


@dataclass(frozen=True)
class Pass:
    """A batch, how many of its last logits are read, and the backbone's own streams by site."""

    batch: Batch
    keep: int = 1
    places: Mapping[nn.Module, Places] = field(default_factory=dict)
    """Where what works on each position apart is run."""
    streams: dict[int, Tensor] = field(default_factory=dict)


SAVINGS = ("layer_prefix", "template_prefix", "beginnings", "last_block")
"""The savings of a ``Caching``, by name."""
MOST_APART = 2.0
"""What a saving may change in half precision, by what the order of rows changes."""


@torch.no_grad()
def proven(
    backbone: Backbone, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], caching: Caching
) -> Caching:
    """The caching without the savings that change a logit of this model; a notice names those.

    It is tried on a few of the prompts, without an edit and with one halfway up, against plain passes. In
    half precision those differ by far more than the last bit already where rows are run together or alone:
    what a saving changes may be as much as that.
    """
    longest = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    rows = sorted({longest[0], longest[len(longest) // 2], longest[-1]})
    asked, said = [prompts[row] for row in rows], [replies[row] or (0,) for row in rows]
    r = torch.ones(1, backbone.width) / backbone.width**0.5
    edit: Edits = {("stream", -(-backbone.layers // 2)): RankOneEdit(r, torch.ones(1), torch.zeros(1))}
    trials: list[Edits] = [{}, edit]
    expected: list[list[Tensor]] = []
    usual = 0.0
    for edits in trials:
        with editing(backbone, edits):
            expected.append(reply_logits(backbone, asked, said))
            usual = max(usual, _by_order(backbone, asked, said, expected[-1]))

    def same(found: Tensor, plain: Tensor) -> bool:
        return _distance(found, plain) <= MOST_APART * usual or same_logits(backbone, found, plain)

    def exact(tried: Caching) -> bool:
        try:
            sweeper = Sweeper(backbone, asked, said, tried)
            for edits, plain in zip(trials, expected, strict=True):
                for part in sweeper.sweep(edits):
                    if not all(same(found, plain[row]) for row, found in part.items()):
                        return False
        except Exception:  # What a saving presumes of a model may be wrong in any way.
            return False
        return True

    if exact(caching):
        return caching
    none = replace(caching, **dict.fromkeys(SAVINGS, False))
    kept = [name for name in SAVINGS if getattr(caching, name) and exact(replace(none, **{name: True}))]
    left = [name for name in SAVINGS if getattr(caching, name) and name not in kept]
    backbone.note(
        f"the search leaves out what would change the model's logits and takes longer: {', '.join(left)}"
    )
    return replace(none, **dict.fromkeys(kept, True))


def _by_order(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    together: Sequence[Float[Tensor, "_token vocabulary"]],
) -> float:
    """By how much logits are others where a row is run alone and not ``together``; 0 in full precision."""
    if backbone.model.dtype.itemsize > 2:
        return 0.0
    alone = [reply_logits(backbone, [ids], [reply])[0] for ids, reply in zip(prompts, replies, strict=True)]
    return max(map(_distance, alone, together))


def _distance(found: Float[Tensor, "token vocabulary"], expected: Float[Tensor, "token vocabulary"]) -> float:
    """The root of the mean squared difference of logits."""
    return float((found.to(expected) - expected).square().mean().sqrt())


class Sweeper:
    """Prompts with teacher-forced replies, in the same batches each time."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        caching: Caching,
    ) -> None:
        self._backbone, self._caching = backbone, caching
        plain = window(backbone) is None and bytes_a_token(backbone)
        self._prefix = shared_prefix(prompts, LEAST_PREFIX) if caching.template_prefix and plain else ()
        # A reply's last token predicts nothing that is asked for.
        self._said = [max(0, len(reply) - 1) for reply in replies]
        self._values = backbone.values
        self._apart = positionwise(backbone) if caching.beginnings or caching.last_block else []
        self._passes = list(self._divide(prompts, replies))
        (template,) = self._batches([tuple(self._prefix)])
        self._template = Pass(template)
        self._sites = self._cached_sites()

    @torch.no_grad()
    def sweep(self, edits: Edits) -> Iterator[dict[int, Float[Tensor, "_token vocabulary"]]]:
        """A trial's logits part by part, for each row those that say its reply, or else the next token's."""
        # The first block to run is that of the last kept site before any edit.
        below = (site for site in self._sites if edits and site <= first_block(edits))
        first = max(below, default=0)
        past = self._past(edits, first)
        for each in self._passes:
            if first and not each.streams:
                self._run(each, {}, 0, self._base_past if self._prefix else None)
            yield self._run(each, edits, first, past)

    def _divide(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Iterator[Pass]:
        """The rows as whole sequences, without what all begin with."""
        cut = [
            (*prompt[len(self._prefix) :], *reply[:-1])
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        for batch in self._batches(cut):
            keep = 1 + max(self._said[row] for row in batch.rows)
            yield Pass(batch, keep, self._places(batch, keep))

    def _places(self, batch: Batch, keep: int) -> dict[nn.Module, Places]:
        """Where each part that works on positions apart is run; the head is given ``keep`` positions."""
        if not any(self._apart):
            return {}
        numbers = torch.arange(batch.ids.numel(), device=batch.ids.device).view_as(batch.ids)
        numbers = beginnings(batch) if self._caching.beginnings else numbers
        real = read = batch.mask == 1
        if self._caching.last_block:
            said = torch.tensor([1 + self._said[row] for row in batch.rows], device=batch.ids.device)
            read = torch.arange(batch.ids.shape[1], 0, -1, device=batch.ids.device) <= said.unsqueeze(1)
        return placed(self._apart, numbers, real, read, keep)

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[Batch]:
        device = self._backbone.model.device
        tokens = PASS_TOKENS if device.type == "cpu" else BATCH_TOKENS
        return batches(rows, self._backbone.pad, device, tokens)

    def _run(self, each: Pass, edits: Edits, first: int, past: KeysValues | None) -> dict[int, Tensor]:
        """Logits of a pass's rows."""
        cache = None if past is None else widened(past, len(each.batch.rows))
        known = self._forward(each, edits, first, cache)
        return {row: known[line, -1 - self._said[row] :] for line, row in enumerate(each.batch.rows)}

    @cached_property
    def _base_past(self) -> KeysValues:
        """Keys and values of the shared prefix by the backbone itself, which keeps its streams."""
        cache = cache_of([])
        self._forward(self._template, {}, 0, cache)
        return held_by(cache)

    def _past(self, edits: Edits, first: int) -> KeysValues | None:
        """Keys and values of the shared prefix under the edits; below the first block, the backbone's."""
        if not self._prefix:
            return None
        known, cache = self._base_past, cache_of([])
        self._forward(self._template, edits, first, cache)
        # A block may keep more than one pair; one that was skipped keeps none, nor any behind the last one.
        pairs = zip_longest(held_by(cache), known)
        return [fresh if fresh is not None and fresh[0].numel() else own for fresh, own in pairs]

    def _forward(
        self, what: Pass, edits: Edits, first: int, cache: Cache | None
    ) -> Float[Tensor, "row kept vocabulary"]:
        """The last logits of a pass, whose streams are kept where it is the backbone's own."""
        blocks = self._backbone.blocks

        def receive(site: int, stream: Tensor) -> None:
            if site in self._sites:
                what.streams[site] = stream

        keeping = nullcontext() if edits or what.streams else captured(blocks, receive)
        # The edits first: to find the writers, the model may have to be run as it is.
        with (
            editing(self._backbone, edits),
            skipped(blocks, first, what.streams[first] if first else None, self._values),
            narrowed(what.places),
            keeping,
        ):
            return forward(self._backbone, what.batch, what.keep, cache, self._before(what, cache)).float()

    def _before(self, what: Pass, cache: Cache | None) -> Int[Tensor, "row past"] | None:
        """The mask of what a cache holds, where it goes on from the shared prefix."""
        if cache is None or not cache.get_seq_length():
            return None
        return marked(self._backbone, self._template.batch).expand(len(what.batch.rows), -1)

    def _cached_sites(self) -> list[int]:
        """The sites whose streams are kept: all, or evenly fewer where memory is short."""
        backbone = self._backbone
        # A block that reads the keys of others needs them run.
        if not self._caching.layer_prefix or backbone.shares_keys:
            return []
        tokens = sum(each.batch.ids.numel() for each in self._passes) + len(self._prefix)
        size = tokens * backbone.width * next(backbone.model.parameters()).element_size()
        fitting = int(self._caching.cache_gib * 2**30 / max(1, size))
        stride = -(-backbone.layers // max(1, fitting))
        return list(range(stride, backbone.layers + 1, stride)) if fitting else []
