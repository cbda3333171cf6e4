"""Replies that grow together are those of the library's own ``generate``, token for token."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from palette.activations import edited
from palette.adapters.mounting import mounted
from palette.backbones import Backbone, answered, batching, cache, generation, greedy_replies
from palette.backbones.cache import PROBE, _deep_rounding, bytes_a_token, stated_bytes_a_token, window
from palette.backbones.continuous import Decoding
from palette.backbones.prefixes import Prefix
from palette.backbones.scoring import forward, next_token_logits, padded
from palette.seeding import torch_seed
from tests.fixtures.noise import noise

VOCABULARY, END, PAD, LONGEST = 48, 2, 0, 24
STOPS = [END, 14, 25, 33, 40]
"""Several, so that replies of models that learned nothing end at different places."""
TINY = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "eos_token_id": END, "pad_token_id": PAD, "bos_token_id": 1,
    "max_position_embeddings": 96,
}  # fmt: skip
GROUPED = {**TINY, "num_key_value_heads": 1, "head_dim": 8}
ARCHITECTURES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**TINY)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**TINY, num_key_value_heads=1)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**GROUPED)),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**GROUPED, sliding_window=64)),
    "gemma2 past its window": (Gemma2ForCausalLM, Gemma2Config(**GROUPED, sliding_window=8)),
    "neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**TINY)),
    "mamba": (
        MambaForCausalLM,
        MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2,
                    eos_token_id=END, pad_token_id=PAD, bos_token_id=1),
    ),
}  # fmt: skip
BY_LIBRARY = {"gemma2 past its window", "mamba"}
"""Whose memory is not keys and values of every token."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def backbone(request) -> Backbone:
    kind, config = ARCHITECTURES[request.param]
    with torch_seed(3):
        model = kind(config)
        for parameter in model.parameters():
            # Stronger weights than at birth, so that replies differ from prompt to prompt and end.
            parameter.data.mul_(4) if parameter.dim() > 1 else None
    model.generation_config.eos_token_id = STOPS
    return stub(model.requires_grad_(False).eval(), request.param)


def stub(model, name: str) -> Backbone:
    """A backbone of token ids alone: nothing here needs words."""
    made = object.__new__(Backbone)
    tokenizer = SimpleNamespace(pad_token_id=PAD, eos_token_id=END)
    made.__dict__.update(model=model, tokenizer=tokenizer, name=name, fingerprint="", stops=tuple(STOPS))
    return made


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts of mixed lengths, many of which begin alike."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    openings = [[1, 5, 7, 9], [1, 5, 7, 9, 11, 13, 15, 17], [1, 6]]
    return [[*openings[draw(0, 3)], *(draw(4, VOCABULARY) for _ in range(draw(1, 12)))] for _ in range(count)]


def expected(backbone: Backbone, asked: list[list[int]], limit: int) -> list[list[int]]:
    """What ``generate`` says to each prompt alone."""
    config = GenerationConfig(
        max_new_tokens=limit, do_sample=False, pad_token_id=PAD, eos_token_id=list(backbone.stops)
    )
    found = []
    for prompt in asked:
        ids = torch.tensor([prompt])
        whole = backbone.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
        reply = whole[0, len(prompt) :].tolist()
        found.append(reply[: next((i for i, token in enumerate(reply) if token in STOPS), len(reply))])
    return found


@pytest.fixture
def narrow(monkeypatch):
    """Few rows at a time and small prefill batches, so that rows leave, join and share prefixes."""
    monkeypatch.setattr(batching, "CPU_ROWS", 8)
    monkeypatch.setattr(batching, "CPU_CHUNK", 48)


def test_replies_are_those_of_generate(backbone, narrow):
    asked = prompts(40)
    replies = greedy_replies(backbone, asked, LONGEST)
    assert replies == expected(backbone, asked, LONGEST)
    assert len({len(reply) for reply in replies}) > 1, "replies of one length do not test who leaves"


def test_each_reply_ends_at_its_own_limit(backbone, narrow):
    asked, limits = prompts(9, seed=2), [3, LONGEST, 5] * 3
    counted = []
    replies = greedy_replies(backbone, asked, limits, lambda count, tokens=0: counted.append((count, tokens)))
    wholes = expected(backbone, asked, LONGEST)
    assert replies == [whole[:limit] for whole, limit in zip(wholes, limits, strict=True)]
    assert [sum(column) for column in zip(*counted, strict=True)] == [9, sum(map(len, replies))]


def test_replies_are_those_of_generate_with_an_adapter_and_a_hook(backbone, narrow):
    asked = prompts(24, seed=1)
    with mounted(backbone.model, noise(backbone, ".layers.", seed=1)):
        changed = greedy_replies(backbone, asked, LONGEST)
        assert changed == expected(backbone, asked, LONGEST)
    assert changed != greedy_replies(backbone, asked, LONGEST)
    if backbone.name != "mamba":
        with edited(backbone.blocks, {1: lambda x: x - 0.5 * x.roll(1, -1)}):
            assert greedy_replies(backbone, asked, LONGEST) == expected(backbone, asked, LONGEST)


def test_only_models_without_such_a_cache_are_left_to_the_library(backbone, monkeypatch):
    used = []
    whole = generation._by_library
    monkeypatch.setattr(generation, "_by_library", lambda *given: used.append(1) or whole(*given))
    greedy_replies(backbone, prompts(4), LONGEST)
    assert bool(used) == (backbone.name in BY_LIBRARY)


def test_a_prefix_is_read_once_and_the_last_position_alone_is_scored(backbone, monkeypatch):
    if backbone.name in BY_LIBRARY:
        return
    read, scored = [], []
    forward = type(backbone.model).forward

    def counting(self, *given, **named):
        read.append(named["input_ids"].numel())
        found = forward(self, *given, **named)
        scored.append(found.logits.shape[1])
        return found

    monkeypatch.setattr(type(backbone.model), "forward", counting)
    monkeypatch.setattr(batching, "CPU_CHUNK", 64)
    asked = [[1, *range(4, 24), 30 + i] for i in range(16)]
    greedy_replies(backbone, asked, 1)
    assert set(scored) == {1}
    assert sum(read) < 21 + 16 + 40, "the shared tokens were read for every prompt"


def test_a_repetition_penalty_of_the_model_is_kept(backbone, narrow, monkeypatch):
    if backbone.name in BY_LIBRARY:
        return
    monkeypatch.setattr(backbone.model.generation_config, "repetition_penalty", 1.7)
    asked = prompts(20, seed=2)
    assert greedy_replies(backbone, asked, LONGEST) == expected(backbone, asked, LONGEST)


def test_settings_that_are_not_known_here_are_left_to_the_library(backbone, monkeypatch):
    monkeypatch.setattr(backbone.model.generation_config, "no_repeat_ngram_size", 2)
    # Of one length: the library counts padding among the tokens that may not come again.
    asked = [[1, 5, 7, 9, last] for last in range(10, 16)]
    assert greedy_replies(backbone, asked, LONGEST) == expected(backbone, asked, LONGEST)


def test_memory_that_is_short_after_all_makes_batches_smaller(backbone, narrow, monkeypatch):
    if backbone.name in BY_LIBRARY:
        return
    step, widest = cache.GrowingCache.step, []

    def short(self, model, tokens):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError
        widest.append(len(tokens))
        return step(self, model, tokens)

    monkeypatch.setattr(cache.GrowingCache, "step", short)
    asked = prompts(12)
    assert greedy_replies(backbone, asked, 6) == expected(backbone, asked, 6)
    assert max(widest) <= 3
    monkeypatch.setattr(generation, "bytes_a_token", lambda model: 64)
    monkeypatch.setattr(cache.GrowingCache, "step", lambda *given: short(given[0], given[1], [0] * 9))
    with pytest.raises(torch.OutOfMemoryError):
        greedy_replies(backbone, asked, 6)


def test_work_batches_whose_replies_are_known_are_not_run(backbone, narrow):
    asked = prompts(40, seed=4)
    whole = greedy_replies(backbone, asked, 8)
    first, *rest = [list(replies) for replies in answered(backbone, asked, 8)]
    known = {row: [3] for row in first}
    found = {}
    for replies in answered(backbone, asked, 8, known.get):
        found |= replies
    assert all(found[row] == [3] for row in first)
    assert all(found[row] == whole[row] for rows in rest for row in rows)
    assert sorted(found) == list(range(40))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=30), st.integers(1, 12)
)
def test_groups_hold_every_prompt_once_and_begin_alike(asked, worth):
    groups = batching.sharing(asked, worth)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(asked)))
    for group in groups:
        beginnings = {tuple(asked[row][: group.shared]) for row in group.rows}
        assert len(beginnings) == 1
        assert all(len(asked[row]) > group.shared for row in group.rows)


def test_a_prefix_of_some_prompts_is_shared_where_it_pays():
    asked = [[1, *[5] * 20, i] for i in range(10)] + [[1, *[6] * 20, i] for i in range(10)] + [[1, 9]]
    shared = {group.shared: len(group.rows) for group in batching.sharing(asked, 64)}
    assert shared == {21: 10, 0: 1}
    assert {group.shared for group in batching.sharing(asked, 10_000)} == {0}


@pytest.mark.parametrize(
    ("free", "each", "rows"), [(1000, 10, 64), (1000, 1000, 1), (0, 10, 1), (1e12, 1, 256)]
)
def test_rows_that_fit_are_a_power_of_two(free, each, rows):
    assert batching.fitting(float(free), each, 256) == rows


def test_rows_shrink_with_memory(backbone, monkeypatch):
    if backbone.name in BY_LIBRARY:
        return
    token_bytes = bytes_a_token(backbone)
    each = batching.row_bytes(backbone, 20, 10, token_bytes)
    # Two batches grow at once, each in half of the share.
    monkeypatch.setattr(batching, "available", lambda device: int(2 * 4 * each / batching.SHARE))
    works = batching.planned(backbone, [[1] * 20] * 30, 10, token_bytes)
    assert {work.capacity for work in works} == {4}
    assert max(len(part.rows) for work in works for part in work.prefills) <= 4
    assert batching.available(torch.device("cpu")) > 0


def test_a_wider_place_is_made_layer_by_layer(monkeypatch):
    layers, alive = 5, []

    def read(wide):
        pairs = [(torch.randn(1, 2, wide, 4), torch.randn(1, 2, wide, 4)) for _ in range(layers)]
        return Prefix(pairs, torch.ones((1, wide), dtype=torch.long))

    slots, first, second = cache.GrowingCache(2), read(3), read(7)
    slots.join(first)
    old = [[*map(weakref.ref, (*each.room, each.keys, each.values))] for each in slots.cache.layers]

    class Watched(cache.SlotLayer):
        def __init__(self, *given):
            super().__init__(*given)
            alive.append(sum(any(part() is not None for part in each) for each in old))

    monkeypatch.setattr(cache, "SlotLayer", Watched)
    slots.join(second)
    assert alive == [5, 4, 3, 2, 1]
    for layer, *pairs in zip(slots.cache.layers, first.known, second.known, strict=True):
        for part, (narrow, wide) in zip((layer.keys, layer.values), zip(*pairs, strict=True), strict=True):
            assert torch.equal(part[:1, :, 4:], narrow) and torch.equal(part[1:], wide)
            assert not part[:1, :, :4].any()


def test_a_place_that_is_left_is_the_system_s_again():
    def resident():
        return psutil.Process().memory_info().rss

    # Once a large piece was freed, the C library keeps smaller ones, and what lies between them.
    torch.empty(16 << 20, dtype=torch.uint8)
    like, pins, rooms = torch.empty(0), [], []
    before = resident()
    for _ in range(32):
        rooms.append(cache.room_for((1 << 19,), like).fill_(1.0))
        pins.append(bytearray(1 << 10))
    held = resident() - before
    del rooms
    assert held > 60 << 20
    assert resident() - before < held / 8
    assert cache.room_for((0, 3), like).shape == (0, 3)
    half = cache.room_for((2, 3), like.bfloat16())
    assert (half.shape, half.dtype) == ((2, 3), torch.bfloat16)


def test_keys_and_values_are_measured(backbone):
    if backbone.name == "mamba":
        assert (window(backbone), bytes_a_token(backbone)) == (0, 0)
        return
    config = backbone.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    assert bytes_a_token(backbone) == stated_bytes_a_token(backbone) == 2 * 2 * heads * 8 * 4


def test_a_model_that_forgets_is_found_out(backbone, monkeypatch):
    """A model whose position ids go wrong behind a gap must not be trusted with one."""
    if backbone.name in BY_LIBRARY:
        return
    forward = type(backbone.model).forward

    def shifted(self, *given, **named):
        if named.get("past_key_values") is not None and named["past_key_values"].get_seq_length() > 2:
            named["position_ids"] = named["position_ids"] + 1
        return forward(self, *given, **named)

    monkeypatch.setattr(type(backbone.model), "forward", shifted)
    assert bytes_a_token(backbone) == 0


def test_what_rounding_may_be_is_told_by_the_model_and_leaves_no_hook(backbone):
    rows = [padded([ids], [0], 0, backbone.model.device) for ids in PROBE]
    with torch.no_grad():
        expected = torch.stack([forward(backbone, row, 1)[0, -1] for row in rows])
        allowed = _deep_rounding(backbone, expected)
    own = 30 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    # Far from what another token would make of them.
    assert own <= allowed < 1e-2 * float(expected.abs().max())
    assert not backbone.model.get_input_embeddings()._forward_hooks


def test_nothing_is_asked_of_no_prompt(backbone):
    assert greedy_replies(backbone, [], 4) == []


def test_what_is_barred_is_never_said_and_all_else_stays(backbone, narrow):
    some = prompts(8)
    plain = greedy_replies(backbone, some, LONGEST)
    gone = {reply[1] for reply in plain if len(reply) > 1}
    asked = Decoding(barred=lambda reply: gone if reply else ())
    barred = greedy_replies(backbone, some, LONGEST, decoding=asked)
    assert all(not gone & set(reply[1:]) for reply in barred)
    for before, after in zip(plain, barred, strict=True):
        assert before[:1] == after[:1]
        if not gone & set(before[1:]):
            assert before == after


def test_drawn_replies_follow_the_model_s_own_probabilities(backbone):
    (prompt,) = prompts(1)
    logits = next_token_logits(backbone, [prompt])[0]
    drawn = greedy_replies(backbone, [prompt] * 2000, 1, decoding=Decoding(seed=3))
    assert drawn == greedy_replies(backbone, [prompt] * 2000, 1, decoding=Decoding(seed=3))
    assert drawn != greedy_replies(backbone, [prompt] * 2000, 1, decoding=Decoding(seed=4))
    counts = torch.bincount(
        torch.tensor([reply[0] if reply else END for reply in drawn]), minlength=VOCABULARY
    )
    known = logits.softmax(-1)
    several = torch.tensor([token for token in range(VOCABULARY) if token not in STOPS])
    apart = (counts[several] / 2000 - known[several]).abs()
    assert float((apart - 5 * (known[several] / 2000).sqrt()).max()) < 0.01
