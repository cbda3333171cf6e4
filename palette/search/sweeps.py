"""A fixed panel of prompts and replies, run again and again under other interventions, nothing twice.

Every saving is exact: what is not computed is known already.

- layer prefix: below the first edited block the stream is the backbone's, kept from its first run;
- template prefix: tokens that all prompts begin with are run once a trial, as a batch of one;
- prompts: a prompt is run once for all its replies, which go on from its keys and values;
- last block: what works on each position apart is run at those only whose logits are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch

from palette.activations import Edits, captured, first_block, narrowed, positionwise, skipped
from palette.backbones import Backbone, Batch, batches
from palette.backbones.cache import shared_prefix, widened
from palette.backbones.scoring import BATCH_TOKENS, Cache, KeysValues, cache_of, forward, held_by
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
    streams: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Prompts that are run together, and the replies that go on from them, where they are run apart."""

    prompts: Pass
    lines: dict[int, int]
    """For each row of the panel the line of its prompt."""
    tails: tuple[tuple[tuple[int, ...], Pass], ...] = ()
    """Replies of about one length, each with the row of the panel that it belongs to."""


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
        self._prefix = shared_prefix(prompts, LEAST_PREFIX) if caching.template_prefix else ()
        self._cut = [tuple(prompt[len(self._prefix) :]) for prompt in prompts]
        # A reply's last token predicts nothing that is asked for.
        self._said = [tuple(reply[:-1]) for reply in replies]
        self._parts = list(self._divide())
        (template,) = self._batches([tuple(self._prefix)])
        self._template = Pass(template)
        self._sites = self._cached_sites()
        self._alone = positionwise(backbone) if caching.last_block else []

    @torch.no_grad()
    def sweep(self, edits: Edits) -> Iterator[dict[int, Float[Tensor, "_token vocabulary"]]]:
        """A trial's logits part by part, for each row those that say its reply, or else the next token's."""
        # The first block to run is that of the last kept site before any edit.
        below = (site for site in self._sites if edits and site <= first_block(edits))
        first = max(below, default=0)
        past = self._past(edits, first)
        for part in self._parts:
            if first and not part.prompts.streams:
                self._run(part, {}, 0, self._base_past if self._prefix else None)
            yield self._run(part, edits, first, past)

    def _divide(self) -> Iterator[Part]:
        """Rows as whole sequences, those with and without a reply apart, and prompts of several rows."""
        by_prompt: dict[Tokens, list[int]] = {}
        for row, prompt in enumerate(self._cut):
            by_prompt.setdefault(prompt, []).append(row)
        shared = [rows for rows in by_prompt.values() if len(rows) > 1 and self._caching.prompts]
        apart = sorted(set(range(len(self._cut))).difference(*shared))
        yield from self._whole([row for row in apart if not self._said[row]])
        yield from self._whole([row for row in apart if self._said[row]])
        yield from self._shared(shared)

    def _whole(self, chosen: list[int]) -> Iterator[Part]:
        """Rows, each as one sequence."""
        for batch in self._batches([self._cut[row] + self._said[row] for row in chosen]):
            lines = {chosen[i]: line for line, i in enumerate(batch.rows)}
            yield Part(Pass(batch, 1 + max(len(self._said[row]) for row in lines)), lines)

    def _shared(self, chosen: list[list[int]]) -> Iterator[Part]:
        """Prompts, each once for all of its rows, and behind a batch of prompts all of their replies."""
        for batch in self._batches([self._cut[rows[0]] for rows in chosen]):
            lines = {row: line for line, i in enumerate(batch.rows) for row in chosen[i]}
            tails = []
            for rows in _alike({row: len(self._said[row]) for row in lines if self._said[row]}):
                (tail,) = self._batches([self._said[row] for row in rows], sys.maxsize)
                tails.append((tuple(rows[i] for i in tail.rows), Pass(tail, tail.ids.shape[1])))
            yield Part(Pass(batch), lines, tuple(tails))

    def _batches(self, rows: Sequence[Tokens], tokens: int | None = None) -> Iterator[Batch]:
        device = self._backbone.model.device
        whole = PASS_TOKENS if device.type == "cpu" else BATCH_TOKENS
        return batches(rows, self._backbone.pad, device, tokens or whole)

    def _run(self, part: Part, edits: Edits, first: int, past: KeysValues | None) -> dict[int, Tensor]:
        """Logits of a part's rows."""
        cache = None
        if past is not None or part.tails:
            cache = widened(past or (), len(part.prompts.batch.rows))
        known = self._forward(part.prompts, edits, first, cache)
        found = {row: known[line] for row, line in part.lines.items()}
        keys_values = [] if cache is None else held_by(cache)
        for rows, tail in part.tails:
            lines = [part.lines[row] for row in rows]
            mask = part.prompts.batch.mask[lines]
            mask = torch.cat([mask.new_ones(len(mask), len(self._prefix)), mask], dim=1)
            said = self._forward(tail, edits, first, _lines_of(keys_values, lines, first, mask), mask)
            for line, row in enumerate(rows):
                found[row] = torch.cat([found[row][-1:], said[line, -len(self._said[row]) :]])
        return {row: logits[-1 - len(self._said[row]) :] for row, logits in found.items()}

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
        known = self._base_past[:first]
        cache = cache_of([])
        self._forward(self._template, edits, first, cache)
        return [*known, *held_by(cache)[first:]]

    def _forward(
        self, what: Pass, edits: Edits, first: int, cache: Cache | None, before: Tensor | None = None
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
            skipped(blocks, first, what.streams[first] if first else None),
            narrowed(self._alone, what.keep),
            keeping,
        ):
            return forward(self._backbone, what.batch, what.keep, cache, before).float()

    def _cached_sites(self) -> list[int]:
        """The sites whose streams are kept: all, or evenly fewer where memory is short."""
        if not self._caching.layer_prefix:
            return []
        backbone = self._backbone
        passes = [p for part in self._parts for p in (part.prompts, *(tail for _, tail in part.tails))]
        tokens = sum(each.batch.ids.numel() for each in passes) + len(self._prefix)
        size = tokens * backbone.width * next(backbone.model.parameters()).element_size()
        fitting = int(self._caching.cache_gib * 2**30 / max(1, size))
        stride = -(-backbone.layers // max(1, fitting))
        return list(range(stride, backbone.layers + 1, stride)) if fitting else []


def _lines_of(
    keys_values: Sequence[tuple[Tensor, Tensor]], lines: list[int], first: int, mask: Int[Tensor, "line past"]
) -> Cache:
    """A cache with these lines; layers below the first one run hold as many keys, which nobody reads."""
    unread = mask.new_zeros(1, 1, 1, 1, dtype=torch.float).expand(len(lines), 1, mask.shape[1], 1)
    known = [(keys[lines], values[lines]) for keys, values in keys_values[first:]]
    return cache_of([(unread, unread)] * first + known)


def _alike(lengths: dict[int, int]) -> Iterator[list[int]]:
    """The rows in groups, none more than half as long again as another of its group."""
    group: list[int] = []
    for row in sorted(lengths, key=lambda row: -lengths[row]):
        if group and lengths[group[0]] > 1.5 * lengths[row]:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
