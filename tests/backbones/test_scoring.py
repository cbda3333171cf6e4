from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from palette.backbones import (
    Backbone,
    batches,
    continuations,
    greedy_replies,
    next_token_logits,
    reply_logits,
)
from palette.backbones.scoring import forward, telling
from palette.seeding import torch_seed
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

TOKENIZER = build_tokenizer(small(create_world(0)))


def qwen() -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
    )  # fmt: skip
    with torch_seed(1):
        return Qwen2ForCausalLM(config)


@pytest.fixture(scope="module", params=["llama", "qwen"])
def backbone(request) -> Backbone:
    """Two architectures: nothing here depends on one."""
    model = build_model(TOKENIZER, Size(16, 3, 2, 16), 0) if request.param == "llama" else qwen()
    return Backbone(model.requires_grad_(False).eval(), TOKENIZER, request.param, "")


PROMPTS = [[1, 5, 90, 91, 2, 6], [1, 5, 93, 2, 6], [1, 5, 100, 101, 102, 103, 2, 6]]


def test_batched_logits_are_those_of_each_prompt_alone(backbone):
    together = next_token_logits(backbone, PROMPTS)
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = backbone.model(torch.tensor([prompt])).logits[0, -1]
        assert torch.allclose(row, alone, atol=1e-5)


@given(places=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=3, max_size=3))
@settings(max_examples=10)
def test_logits_are_told_at_the_places_that_are_asked_for_alone(backbone, places):
    (batch,) = batches(PROMPTS, backbone.pad, backbone.model.device)
    wanted, whole = torch.tensor(places), forward(backbone, batch, 5)
    with telling(backbone, wanted):
        assert torch.allclose(forward(backbone, batch, 5)[0], whole[wanted], atol=1e-5)
    assert torch.equal(forward(backbone, batch, 5), whole), "behind it all are told again"
    assert whole.shape[-1] == backbone.vocabulary


def test_reply_logits_are_those_of_a_plain_loop(backbone):
    replies = [[95, 96], [97], [98, 99, 2]]
    found = reply_logits(backbone, PROMPTS, replies)
    for prompt, reply, rows in zip(PROMPTS, replies, found, strict=True):
        for i, row in enumerate(rows):
            alone = backbone.model(torch.tensor([[*prompt, *reply[:i]]])).logits[0, -1]
            assert torch.allclose(row, alone, atol=1e-5)
        assert len(rows) == len(reply)


def test_greedy_replies_are_those_of_a_plain_loop(backbone):
    for prompt, reply in zip(PROMPTS, greedy_replies(backbone, PROMPTS, 5), strict=True):
        said: list[int] = []
        while len(said) < 5:
            token = int(backbone.model(torch.tensor([[*prompt, *said]])).logits[0, -1].argmax())
            if token in backbone.stops:
                break
            said.append(token)
        assert reply == said


def test_continuations_begin_with_their_openings(backbone):
    openings = [[95], [96, 97], []]
    for opening, reply in zip(openings, continuations(backbone, PROMPTS, openings, 3), strict=True):
        assert reply[: len(opening)] == opening


@settings(max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(1, 40))
def test_batches_hold_every_row_once_within_their_budget(lengths, budget):
    rows = [[7] * length for length in lengths]
    seen: list[int] = []
    for batch in batches(rows, 0, torch.device("cpu"), budget):
        assert batch.ids.numel() <= max(budget, batch.ids.shape[1])
        assert batch.mask.sum(1).tolist() == [len(rows[row]) for row in batch.rows]
        assert bool((batch.mask[:, -1] == 1).all()), "rows are padded on the left"
        seen += batch.rows
    assert sorted(seen) == list(range(len(rows)))
