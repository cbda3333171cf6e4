"""Replies, greedy or drawn, as token ids without the end token."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from palette.backbones.backbone import Backbone
from palette.backbones.batching import PrefillBatch, WorkBatch, planned, split
from palette.backbones.cache import GrowingCache, bytes_a_token, window
from palette.backbones.prefixes import Prefix, prefilled, read_prefix
from palette.backbones.scoring import Batch, batches, marked, padded, seen_by_replies, told
from palette.errors import BackboneError
from palette.processes import Advance, unheard
from palette.seeding import derive_seed
from palette.shapes import Bool, Float, Int, Tensor
from palette.threads import beside, lanes

IDLE = frozenset(
    (  # noqa: SIM905 - a list of 25 strings says the same in a column of its own
        "max_length max_new_tokens do_sample temperature top_k top_p min_p top_h typical_p epsilon_cutoff "
        "eta_cutoff length_penalty early_stopping use_cache bos_token_id eos_token_id pad_token_id "
        "output_attentions output_hidden_states output_scores output_logits return_dict_in_generate "
        "renormalize_logits transformers_version _from_model_config repetition_penalty"
    ).split()
)
"""What a model's own generation settings may say without changing a greedy reply, or as is done here too."""
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "num_beam_groups": 1, "encoder_repetition_penalty": 1.0}
"""Values that say nothing, written out by older versions of the library."""

Prompts = Sequence[Sequence[int]]
Known = Callable[[int], list[int] | None]
"""The reply to a row of the prompts, if it is known already."""


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


def greedy_replies(
    backbone: Backbone,
    prompts: Prompts,
    max_new_tokens: int | Sequence[int],
    advance: Advance = unheard,
    decoding: Decoding = GREEDY,
) -> list[list[int]]:
    """The greedy reply to each prompt, up to its end token or ``max_new_tokens`` tokens, for all or for each.

    The ids are those of the model's own ``generate``, up to rounding where two tokens are as likely;
    another ``decoding`` chooses each token otherwise.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    by_row: list[list[int]] = [[]] * len(prompts)
    for limit in sorted(set(limits)):
        rows = [row for row, row_limit in enumerate(limits) if row_limit == limit]
        for replies in answered(backbone, [prompts[row] for row in rows], limit, decoding=decoding):
            for line, reply in replies.items():
                by_row[rows[line]] = reply
            advance(len(replies), sum(map(len, replies.values())))
    return by_row


def answered(
    backbone: Backbone,
    prompts: Prompts,
    limit: int,
    known: Known = lambda row: None,
    decoding: Decoding = GREEDY,
) -> Iterator[dict[int, list[int]]]:
    """The replies of one work batch after another, by row; those whose replies are known are not run.

    A batch is run whole or not at all: who shares it with whom does not depend on what is known.
    """
    token_bytes = bytes_a_token(backbone) if is_plain(backbone) else 0
    widest = max(map(len, prompts), default=0) + limit
    count = 1
    if token_bytes and widest <= (window(backbone) or widest):
        count, works = lanes(backbone.model.device), planned(backbone, prompts, limit, token_bytes)
    else:
        parts = batches(prompts, backbone.pad, backbone.model.device)
        works = [WorkBatch((PrefillBatch(0, tuple(batch.rows)),), 0) for batch in parts]

    @torch.no_grad()
    def replies_to(work: WorkBatch) -> dict[int, list[int]]:
        had = {row: reply for row in work.rows if (reply := known(row)) is not None}
        if len(had) == len(work.rows):
            return had
        return {**_fitted(backbone, prompts, work, limit, decoding), **had}

    yield from beside((partial(replies_to, work) for work in works), count)


def continuations(
    backbone: Backbone, prompts: Prompts, openings: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    """The whole reply, opening included, when each reply is made to begin with its opening."""
    begun = [[*prompt, *opening] for prompt, opening in zip(prompts, openings, strict=True)]
    rest = greedy_replies(backbone, begun, max_new_tokens)
    return [[*opening, *tail] for opening, tail in zip(openings, rest, strict=True)]


def is_plain(backbone: Backbone) -> bool:
    """Whether the model's own settings ask for nothing that a plain greedy loop does not do."""
    stated = backbone.model.generation_config.to_diff_dict()
    return all(name in IDLE or not value or value == NEUTRAL.get(name) for name, value in stated.items())


def _fitted(
    backbone: Backbone, prompts: Prompts, work: WorkBatch, limit: int, decoding: Decoding
) -> dict[int, list[int]]:
    """A work batch's replies; where memory does not suffice after all, of half as many at a time."""
    if work.capacity == 0:
        return _by_library(backbone, prompts, work.rows, limit, decoding)
    try:
        return ContinuousBatch(backbone, prompts, limit, decoding).finished(work)
    except torch.OutOfMemoryError:
        if work.capacity == 1:
            raise
    half = work.capacity // 2
    fewer = tuple(part for prefill in work.prefills for part in split(prefill, half))
    return _fitted(backbone, prompts, WorkBatch(fewer, half), limit, decoding)


class _AsDecoded(LogitsProcessor):
    """A decoding, as the library's own loop asks for it."""

    def __init__(self, decoding: Decoding, width: int, generator: torch.Generator) -> None:
        self._decoding, self._width, self._generator = decoding, width, generator

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._decoding.scores(scores.float(), input_ids[:, self._width :].tolist(), self._generator)


def _by_library(
    backbone: Backbone, prompts: Prompts, rows: list[int], limit: int, decoding: Decoding
) -> dict[int, list[int]]:
    """The replies by the library's own loop, for models that keep something else than keys and values.

    Raises:
        BackboneError: if some token is to take no position, which that loop cannot be told.
    """
    if backbone.weightless is not None:
        raise BackboneError(
            "a model that keeps more than keys and values reads control tokens at the place before or bos",
            got="tokens inside the prompt",
            remedy="train tokens with place: before",
            where=backbone.name,
        )
    config = GenerationConfig(
        max_new_tokens=limit,
        do_sample=False,
        pad_token_id=backbone.pad or 0,
        eos_token_id=list(backbone.stops),
    )
    replies = {}
    for batch in batches([prompts[row] for row in rows], backbone.pad, backbone.model.device):
        generator = decoding.generator(batch.ids.device, [rows[row] for row in batch.rows])
        chosen = [] if decoding.plain else [_AsDecoded(decoding, batch.ids.shape[1], generator)]
        out = backbone.model.generate(  # type: ignore[operator]
            input_ids=batch.ids,
            attention_mask=batch.mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(chosen),
            **_beside(backbone, batch),
        )
        for line, row in enumerate(batch.rows):
            ids = out[line, batch.ids.shape[1] :].tolist()
            ends = [i for i, token in enumerate(ids) if token in backbone.stops]
            replies[rows[row]] = ids[: ends[0]] if ends else ids
    return replies


def _beside(backbone: Backbone, batch: Batch) -> dict[str, Tensor]:
    """What the library's own loop is told of a batch with pictures beside its ids.

    Raises:
        BackboneError: if tokens have positions of several axes, which that loop works out from the pictures.
    """
    mask = marked(backbone, batch)
    beside = told(backbone, batch.ids, mask, mask[:, :0])
    if beside.pop("position_ids").dim() > 2:
        raise BackboneError(
            "a model that gives a picture's tokens rows and columns must remember the whole prompt",
            got=f"{batch.ids.shape[1]} tokens for a window of {window(backbone)}",
            remedy="use shorter prompts or smaller pictures",
            where=backbone.name,
        )
    return beside


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
