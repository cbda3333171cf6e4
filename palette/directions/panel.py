"""A fixed panel of prompts and replies, run again and again under other interventions, nothing twice.

Every saving is exact: what is not computed is known already.

- layer prefix: below the first edited block the stream is the backbone's, kept from its first run;
- template prefix: tokens that all rows begin with are run once a trial, as a batch of one;
- several trials share one forward pass, every row with its own trial's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from pydantic import Field

from palette.activations import Edits, captured, first_block, skipped, stacked
from palette.backbones import Backbone
from palette.backbones.scoring import (
    BATCH_TOKENS,
    Batch,
    Cache,
    KeysValues,
    batches,
    cache_of,
    forward,
    held_by,
)
from palette.directions.interventions import editing
from palette.settings import Settings
from palette.shapes import Float, Tensor

CPU_TOKENS = 512
"""Tokens of a pass on a CPU: what it works on stays in the cache, and rows of one length meet."""

LEAST_PREFIX = 4
"""A shared template prefix shorter than this costs more to run apart than it saves."""


class Savings(Settings):
    """The exact savings of a trial; each can be switched off, and changes no score."""

    layer_prefix: bool = Field(True, description="run only the blocks from the first edited one")
    template_prefix: bool = Field(True, description="run what all prompts begin with once a trial")
    trials_per_pass: int = Field(1, ge=1, description="trials that share one forward pass")
    base_logits: bool = Field(True, description="keep the backbone's own logits instead of running it")
    cache_gib: float = Field(2.0, gt=0, description="memory for kept streams; fewer sites if it is short")


@dataclass
class Part:
    """Rows that are run together, and the backbone's own streams for them by site."""

    batch: Batch
    keep: int
    streams: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Swept:
    """What one pass gave: the trials and rows it was about, and their logits."""

    trials: list[int]
    rows: list[int]
    logits: Float[Tensor, "trial row kept vocabulary"]
    """The last n are those with which a row's reply of n tokens is said; n is 1 for no reply."""


class Panel:
    """Prompts with teacher-forced replies, in the same batches each time."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        savings: Savings,
    ) -> None:
        self._backbone, self._savings = backbone, savings
        # A reply's last token predicts nothing that is asked for.
        whole = [[*prompt, *reply[:-1]] for prompt, reply in zip(prompts, replies, strict=True)]
        self.kept = [max(1, len(reply)) for reply in replies]
        self._prefix = shared_prefix(prompts) if savings.template_prefix else []
        self._parts = list(self._divide([row[len(self._prefix) :] for row in whole]))
        self._head = Part(Batch([0], self._ids([self._prefix]), self._ids([[1] * len(self._prefix)])), 1)
        self._sites = self._cached_sites()

    @torch.no_grad()
    def sweep(self, trials: Sequence[Edits]) -> Iterator[Swept]:
        """The logits of every trial on every row, pass by pass."""
        size = self._savings.trials_per_pass
        for start in range(0, len(trials), size):
            numbers = list(range(start, min(start + size, len(trials))))
            each = [trials[number] for number in numbers]
            past = self._past(each)
            for part in self._parts:
                logits = self._run(part, each, past)
                rows = len(part.batch.rows)
                yield Swept(numbers, part.batch.rows, logits.unflatten(0, (len(each), rows)))

    def _divide(self, suffixes: list[list[int]]) -> Iterator[Part]:
        """Rows with and without a reply apart, so that few logits are computed that nobody reads."""
        for replied in (False, True):
            chosen = [row for row, kept in enumerate(self.kept) if (kept > 1) == replied]
            keep = max((self.kept[row] for row in chosen), default=1)
            device = self._backbone.model.device
            whole = CPU_TOKENS if device.type == "cpu" else BATCH_TOKENS
            tokens = max(1, whole // self._savings.trials_per_pass)
            cut = [suffixes[row] for row in chosen]
            for batch in batches(cut, self._backbone.pad, device, tokens):
                yield Part(Batch([chosen[row] for row in batch.rows], batch.ids, batch.mask), keep)

    def _run(self, part: Part, each: Sequence[Edits], past: KeysValues | None) -> Tensor:
        """Logits of a part under several trials at once, trial by trial."""
        count, rows = len(each), len(part.batch.rows)
        edits = stacked(each, rows)
        cache = None
        if past is not None:
            cache = cache_of([(k.repeat_interleave(rows, 0), v.repeat_interleave(rows, 0)) for k, v in past])
        return self._forward(part, count, edits, self._start(part, edits, count), cache).float()

    def _start(self, part: Part, edits: Edits, count: int) -> tuple[int, Tensor | None]:
        """The first block to run, and the stream that it is given for ``count`` trials."""
        known = [site for site in self._sites if site <= first_block(edits)] if edits else []
        if not known:
            return 0, None
        if not part.streams:
            self._keep_streams(part)
        return known[-1], part.streams[known[-1]].repeat(count, 1, 1)

    def _keep_streams(self, part: Part) -> None:
        """Runs a part once without edits and keeps its streams."""

        def receive(site: int, stream: Tensor) -> None:
            if site in self._sites:
                part.streams[site] = stream

        cache = cache_of([]) if part is self._head else None
        if part is not self._head and self._prefix:
            rows = len(part.batch.rows)
            cache = cache_of(
                [(k.repeat_interleave(rows, 0), v.repeat_interleave(rows, 0)) for k, v in self._base_past]
            )
        with captured(self._backbone.blocks, receive):
            self._forward(part, 1, {}, (0, None), cache)

    @cached_property
    def _base_past(self) -> KeysValues:
        """Keys and values of the shared prefix by the backbone itself."""
        cache = cache_of([])
        self._forward(self._head, 1, {}, (0, None), cache)
        return held_by(cache)

    def _past(self, each: Sequence[Edits]) -> KeysValues | None:
        """Keys and values of the shared prefix under each trial; below the first edit, the backbone's."""
        if not self._prefix:
            return None
        count, edits = len(each), stacked(each, 1)
        first, stream = self._start(self._head, edits, count)
        cache = cache_of([])
        self._forward(self._head, count, edits, (first, stream), cache)
        known = [(k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in self._base_past]
        return known[:first] + held_by(cache)[first:]

    def _forward(
        self,
        part: Part,
        count: int,
        edits: Edits,
        start: tuple[int, Tensor | None],
        cache: Cache | None,
    ) -> Tensor:
        batch = part.batch
        repeated = Batch(batch.rows, batch.ids.repeat(count, 1), batch.mask.repeat(count, 1))
        # The edits first: to find the writers, the model may have to be run as it is.
        with editing(self._backbone, edits), skipped(self._backbone.blocks, *start):
            return forward(self._backbone, repeated, part.keep, cache)

    def _cached_sites(self) -> list[int]:
        """The sites whose streams are kept: all, or evenly fewer where memory is short."""
        if not self._savings.layer_prefix:
            return []
        backbone = self._backbone
        tokens = sum(part.batch.ids.numel() for part in self._parts) + len(self._prefix)
        size = tokens * backbone.width * next(backbone.model.parameters()).element_size()
        fitting = int(self._savings.cache_gib * 2**30 / max(1, size))
        stride = -(-backbone.layers // max(1, fitting))
        return list(range(stride, backbone.layers + 1, stride)) if fitting else []

    def _ids(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self._backbone.model.device, dtype=torch.long)


def shared_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all prompts begin with, at least one token short of the shortest prompt."""
    longest = min((len(prompt) for prompt in prompts), default=1) - 1
    count = 0
    while count < longest and len({prompt[count] for prompt in prompts}) == 1:
        count += 1
    return list(prompts[0][:count]) if count >= LEAST_PREFIX else []
