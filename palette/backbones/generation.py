"""Greedy replies, as token ids without the end token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import GenerationConfig

from palette.backbones.backbone import Backbone
from palette.backbones.scoring import batches

Advance = Callable[[int], None]
"""Called with the number of replies just finished."""


@torch.no_grad()
def greedy_replies(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    advance: Advance = lambda count: None,
) -> list[list[int]]:
    """The greedy reply to each prompt, up to its end token or ``max_new_tokens`` tokens."""
    found: list[list[int]] = [[]] * len(prompts)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=backbone.pad,
        eos_token_id=list(backbone.stops),
    )
    for batch in batches(prompts, backbone.pad, backbone.model.device):
        out = backbone.model.generate(  # type: ignore[operator]
            input_ids=batch.ids, attention_mask=batch.mask, generation_config=config
        )
        for line, row in enumerate(batch.rows):
            found[row] = _until_end(out[line, batch.ids.shape[1] :].tolist(), backbone.stops)
        advance(len(batch.rows))
    return found


def continuations(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    openings: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[list[int]]:
    """The whole reply, opening included, when each reply is made to begin with its opening."""
    begun = [[*prompt, *opening] for prompt, opening in zip(prompts, openings, strict=True)]
    rest = greedy_replies(backbone, begun, max_new_tokens)
    return [[*opening, *tail] for opening, tail in zip(openings, rest, strict=True)]


def _until_end(ids: list[int], stops: tuple[int, ...]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in stops]
    return ids[: ends[0]] if ends else ids
