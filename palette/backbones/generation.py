"""Replies, greedy or drawn, as token ids without the end token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from palette.backbones.backbone import Backbone
from palette.backbones.batching import PrefillBatch, WorkBatch, planned, split
from palette.backbones.cache import bytes_a_token, window
from palette.backbones.continuous import GREEDY, ContinuousBatch, Decoding, Prompts
from palette.backbones.scoring import Batch, batches, marked, told
from palette.errors import BackboneError
from palette.processes import Advance, unheard
from palette.shapes import Tensor
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

Known = Callable[[int], list[int] | None]
"""The reply to a row of the prompts, if it is known already."""


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
