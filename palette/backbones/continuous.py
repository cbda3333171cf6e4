"""Replies that grow together: how each token is chosen, and who leaves and joins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from palette.backbones.backbone import Backbone
from palette.backbones.batching import PrefillBatch, WorkBatch
from palette.backbones.cache import GrowingCache
from palette.backbones.prefixes import Prefix, prefilled, read_prefix
from palette.backbones.scoring import padded, seen_by_replies
from palette.seeding import derive_seed
from palette.shapes import Bool, Float, Int, Tensor

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Decoding:
    """How each token of a reply is chosen: the likeliest one, unless something else is said."""

    barred: Callable[[Sequence[int]], Collection[int]] | None = None
    """Given the reply so far, the tokens that may not follow."""
    seed: int | None = None
    """If given, tokens are drawn at temperature 1."""

    @property
    def plain(self) -> bool:
        """Whether nothing else is said."""
        return self.barred is None and self.seed is None

    def generator(self, device: torch.device, rows: Sequence[int]) -> torch.Generator:
        """What the tokens of replies to these rows are drawn by."""
        return torch.Generator(device).manual_seed(derive_seed(self.seed or 0, "decoding", *rows))

    def scores(
        self,
        logits: Float[Tensor, "row vocabulary"],
        replies: Sequence[Sequence[int]],
        generator: torch.Generator,
    ) -> Float[Tensor, "row vocabulary"]:
        """Scores of which the greatest is the next token of each reply (Gumbel's maximum where drawn)."""
        if self.seed is not None:
            uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
            logits = logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        if self.barred is not None:
            barred = [tuple(self.barred(reply)) for reply in replies]
            lines = [line for line, tokens in enumerate(barred) for _ in tokens]
            # All at once: on an accelerator each row alone would be a launch, and a copy that it waits for.
            if lines:
                at, of = torch.tensor([lines, [*chain(*barred)]], device=logits.device)
                logits[at, of] = float("-inf")
        return logits


GREEDY = Decoding()


class ContinuousBatch:
    """Replies that grow together: a finished one leaves, and others join where it pays."""

    def __init__(self, backbone: Backbone, prompts: Prompts, limit: int, decoding: Decoding = GREEDY) -> None:
        self._backbone, self._prompts, self._limit = backbone, prompts, limit
        self._decoding, self._generator = decoding, torch.Generator(backbone.model.device)
        self._penalty = float(backbone.model.generation_config.repetition_penalty or 1.0)
        self._prefixes: dict[tuple[int, ...], Prefix] = {}
        self._said: dict[int, list[int]] = {}
        self._seen: Tensor | None = None
        self._stops = frozenset(backbone.stops)

    def finished(self, work: WorkBatch) -> dict[int, list[int]]:
        """The replies of a work batch, by row."""
        self._generator = self._decoding.generator(self._backbone.model.device, work.rows)
        waiting = deque(work.prefills)
        slots = GrowingCache(work.capacity)
        lines: list[int] = []
        while waiting or lines:
            while waiting and len(lines) + len(waiting[0].rows) <= work.capacity:
                lines += self._join(slots, waiting.popleft())
            if lines:
                lines = self._step(slots, lines)
        return self._said

    def _join(self, slots: GrowingCache, prefill: PrefillBatch) -> list[int]:
        """Reads prompts and takes the first token of each reply; the rows that go on."""
        rows = prefill.rows
        prompts = [self._prompts[row] for row in rows]
        prefix = self._prefix(tuple(prompts[0][: prefill.shared]))
        rests = [prompt[prefill.shared :] for prompt in prompts]
        batch = padded(rests, range(len(rests)), self._backbone.pad, self._backbone.model.device)
        logits, read = prefilled(self._backbone, batch, prefix)
        self._said |= {row: [] for row in rows}
        seen = self._marks(rows)
        stay = self._say(rows, self._chosen(rows, logits, seen))
        if stay:
            # A view, where all go on: copies of what was read would be as large once more.
            whole = len(stay) == len(rows)
            kept: Any = slice(None) if whole else torch.tensor(stay, device=logits.device)
            known = [(k[kept], v[kept]) if k.dim() > 1 else (k, v) for k, v in read.known]
            slots.join(Prefix(known, seen_by_replies(self._backbone, read.mask[kept])))
        if seen is not None:
            self._seen = torch.cat([seen[:0] if self._seen is None else self._seen, seen[stay]])
        return [rows[line] for line in stay]

    def _step(self, slots: GrowingCache, lines: list[int]) -> list[int]:
        """Says one more token of each reply; the rows that go on."""
        last = torch.tensor([self._said[row][-1] for row in lines], device=self._backbone.model.device)
        tokens = self._chosen(lines, slots.step(self._backbone, last), self._seen)
        stay = self._say(lines, tokens)
        if len(stay) == len(lines):
            return lines
        order = slots.leave(stay)
        if self._seen is not None:
            self._seen = self._seen[order]
        return [lines[line] for line in order]

    def _prefix(self, tokens: tuple[int, ...]) -> Prefix | None:
        """What rows begin with, read once; None where they share nothing."""
        if tokens and tokens not in self._prefixes:
            self._prefixes[tokens] = read_prefix(self._backbone, tokens)
        return self._prefixes.get(tokens)

    def _say(self, rows: Sequence[int], tokens: Int[Tensor, "row"]) -> list[int]:
        """Adds a token to each reply, or ends it there; the lines of those that go on."""
        stay = []
        for line, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token in self._stops:
                continue
            self._said[row].append(token)
            if len(self._said[row]) < self._limit:
                stay.append(line)
        return stay

    def _chosen(
        self,
        rows: Sequence[int],
        logits: Float[Tensor, "row vocabulary"],
        seen: Bool[Tensor, "row vocabulary"] | None,
    ) -> Int[Tensor, "row"]:
        """The next token of each row, those that were seen held back as the model's settings say."""
        scores = logits.float()
        if seen is not None:
            penalised = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
            scores = torch.where(seen, penalised, scores)
        if not self._decoding.plain:
            said = [self._said[row] for row in rows]
            scores = self._decoding.scores(scores.log_softmax(-1), said, self._generator)
        chosen = scores.argmax(-1)
        if seen is not None:
            seen.scatter_(1, chosen.unsqueeze(1), value=True)
        return chosen

    def _marks(self, rows: Sequence[int]) -> Bool[Tensor, "row vocabulary"] | None:
        """Which tokens stand in each prompt, where that plays a part."""
        if self._penalty == 1.0:
            return None
        size = self._backbone.vocabulary
        seen = torch.zeros((len(rows), size), dtype=torch.bool)
        for line, row in enumerate(rows):
            seen[line, [token for token in self._prompts[row] if token < size]] = True
        return seen.to(self._backbone.model.device)
