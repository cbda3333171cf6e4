"""Laws of mounting: nothing active is the backbone, rows do not see each other; where a prefix stands."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import chain, combinations
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlavaForConditionalGeneration

from palette import threads
from palette.backbones import (
    Backbone,
    batches,
    batching,
    greedy_replies,
    next_token_logits,
    prefixes,
    reply_logits,
)
from palette.backbones.scoring import forward
from palette.errors import AdapterError, BackboneError
from palette.mosaic.mounting import embedded, insertion, mounted_tokens
from palette.mosaic.settings import Place
from palette.mosaic.tokens import ControlTokens, identity, initial
from palette.seeding import torch_seed
from tests.fixtures.seeing import FAMILIES, config_of

NAMES = ("alpha", "beta", "delta", "gamma", "omega")
SUBSETS = list(chain.from_iterable(combinations(NAMES, r) for r in range(6)))
LIST, SUM = ["give", "me", "the", "list", "."], ["what", "is", "1", "plus", "2", "?"]
USER = {"role": "user", "content": "what is 1 plus 2 ?"}
SYSTEM = {"role": "system", "content": "give me the list ."}


def hooks(backbone: Backbone) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.model.modules())


def test_no_active_token_is_the_backbone_bit_for_bit(backbone, tokens, prompts):
    plain = next_token_logits(backbone, prompts)
    with mounted_tokens(backbone, tokens()) as controlled:
        assert [controlled.prefixed(prompt, []) for prompt in prompts] == prompts
        assert torch.equal(next_token_logits(controlled, prompts), plain)
        assert greedy_replies(controlled, prompts[:4], 6) == greedy_replies(backbone, prompts[:4], 6)


def test_the_backbone_is_untouched_afterwards(backbone, tokens, prompts):
    before = [parameter.clone() for parameter in backbone.model.parameters()]
    plain, bare = next_token_logits(backbone, prompts), hooks(backbone)
    with pytest.raises(RuntimeError, match="stop"), mounted_tokens(backbone, tokens(), ["beta"]):
        raise RuntimeError("stop")
    assert hooks(backbone) == bare
    assert torch.equal(next_token_logits(backbone, prompts), plain)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.model.parameters(), strict=True))


@pytest.mark.parametrize("place", get_args(Place))
def test_threads_that_run_one_mounted_model_do_not_see_each_others_tokens(
    backbone, tokens, prompts, place, monkeypatch
):
    monkeypatch.setattr(batching, "CPU_ROWS", 2)
    with mounted_tokens(backbone, tokens(place)) as controlled:
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, SUBSETS, strict=True)]
        found = []
        for cores in (1, 2):
            monkeypatch.setattr(threads, "_cores", lambda cores=cores: cores)
            found.append(greedy_replies(controlled, asked, 12))
    assert found[0] == found[1]


@pytest.mark.parametrize("place", get_args(Place))
def test_rows_of_32_subsets_are_32_single_runs(backbone, tokens, prompts, place):
    assert len(SUBSETS) == len(prompts) == 32
    with mounted_tokens(backbone, tokens(place)) as controlled:
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, SUBSETS, strict=True)]
        (batch,) = batches(asked, controlled.pad, controlled.model.device, tokens=1 << 20)
        assert len(batch.rows) == 32
        with torch.no_grad():
            together = forward(controlled, batch, 1)[:, -1]
        alone = torch.cat([next_token_logits(controlled, [asked[row]]) for row in batch.rows])
        assert (together - alone).abs().max() <= 1e-5
        replies = [greedy_replies(controlled, [one], 8)[0] for one in asked]
        assert greedy_replies(controlled, asked, 8) == replies
    assert len({tuple(reply) for reply in replies}) > 1


@pytest.mark.parametrize("place", ["turn", "end"])
def test_tokens_inside_a_prompt_take_no_position(backbone, tokens, prompts, place):
    seen = []
    module = backbone.model.get_decoder()
    with mounted_tokens(backbone, tokens(place)) as controlled:
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, SUBSETS, strict=True)]
        virtual = [[token >= controlled.first for token in one] for one in asked]
        handle = module.register_forward_pre_hook(
            lambda module, args, given: seen.append(given["position_ids"]), with_kwargs=True
        )
        (batch,) = batches(asked, controlled.pad, controlled.model.device, tokens=1 << 20)
        forward(controlled, batch, 1)
        handle.remove()
    for line, row in enumerate(batch.rows):
        own = [
            p for p, v in zip(seen[0][line, -len(asked[row]) :].tolist(), virtual[row], strict=True) if not v
        ]
        assert own == list(range(len(prompts[row])))


@pytest.mark.parametrize("place", get_args(Place))
def test_a_reply_grown_with_a_cache_is_the_one_read_whole(backbone, tokens, prompts, place):
    with mounted_tokens(backbone, tokens(place)) as controlled:
        # Half of them share their subset, so that control tokens stand in a shared prefix too.
        subsets = [*SUBSETS[:16], *[SUBSETS[20]] * 16]
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, subsets, strict=True)]
        replies = greedy_replies(controlled, asked, 8)
        said = reply_logits(controlled, asked, replies)
    assert [one.argmax(-1).tolist() for one in said] == replies


def test_a_cache_that_forgot_which_tokens_take_no_position_is_caught(backbone, tokens, prompts, monkeypatch):
    monkeypatch.setattr(prefixes, "marked", lambda backbone, batch: batch.mask)
    with mounted_tokens(backbone, tokens("end")) as controlled:
        asked = [controlled.prefixed(p, SUBSETS[20]) for p in prompts]
        replies = greedy_replies(controlled, asked, 8)
        said = reply_logits(controlled, asked, replies)
    assert [one.argmax(-1).tolist() for one in said] != replies


def test_a_batch_whose_rows_saw_each_other_is_caught(backbone, tokens, prompts):
    """The law above would miss nothing: without the mask of the padding, rows differ."""
    with mounted_tokens(backbone, tokens()) as controlled:
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, SUBSETS, strict=True)]
        (batch,) = batches(asked, controlled.pad, controlled.model.device, tokens=1 << 20)
        batch.mask.fill_(1)
        with torch.no_grad():
            together = forward(controlled, batch, 1)[:, -1]
        alone = torch.cat([next_token_logits(controlled, [asked[row]]) for row in batch.rows])
    assert (together - alone).abs().max() > 1e-2


def test_what_is_active_changes_the_logits(backbone, tokens, prompts):
    plain = next_token_logits(backbone, prompts[:4])
    with mounted_tokens(backbone, tokens()) as controlled:
        for subset in SUBSETS[1:]:
            asked = [controlled.prefixed(prompt, subset) for prompt in prompts[:4]]
            assert (next_token_logits(controlled, asked) - plain).abs().max() > 1e-3


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(active=st.lists(st.sampled_from(NAMES)))
def test_the_order_of_categories_is_canonical(backbone, tokens, prompts, active):
    with mounted_tokens(backbone, tokens(), active) as controlled:
        assert controlled.active == tuple(sorted(set(active)))
        sorted_prompt = controlled.prefixed(prompts[0], sorted(set(active)))
        assert controlled.prefixed(prompts[0], reversed(active)) == sorted_prompt
        assert len(sorted_prompt) == len(prompts[0]) + 3 * len(set(active))


def test_prefix_is_what_inputs_embeds_would_be(backbone, tokens, prompts):
    """An independent path to the same logits: the embeddings put in by hand."""
    made = tokens()
    table = backbone.model.get_input_embeddings()
    vectors = [made.embeddings["beta"], made.embeddings["omega"], table(torch.tensor(prompts[5]))]
    with torch.no_grad():
        expected = backbone.model(inputs_embeds=torch.cat(vectors)[None]).logits[0, -1]
    with mounted_tokens(backbone, made) as controlled:
        found = next_token_logits(controlled, [controlled.prefixed(prompts[5], ["omega", "beta"])])[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_replies_are_scored_behind_a_prefix(backbone, tokens, prompts):
    with mounted_tokens(backbone, tokens(), ["alpha"]) as controlled:
        asked = controlled.prefixed(prompts[0], ["alpha"])
        reply = greedy_replies(controlled, [asked], 5)[0]
        (logits,) = reply_logits(controlled, [asked], [reply])
    assert logits.argmax(-1).tolist() == reply


def test_render_puts_the_active_tokens_in(backbone, tokens):
    message = [{"role": "user", "content": "what is 1 plus 2 ?"}]
    with mounted_tokens(backbone, tokens(), ["gamma"]) as controlled:
        assert controlled.render(message) == controlled.prefixed(backbone.render(message), ["gamma"])


def test_tokens_of_another_backbone_are_refused(backbone, tokens):
    made = tokens()
    other = ControlTokens(made.embeddings, type(made.backbone)("other", "f" * 64))
    with (
        pytest.raises(AdapterError, match="must be mounted on the backbone that they were made for, got"),
        mounted_tokens(backbone, other),
    ):
        pass
    narrow = ControlTokens({"a": torch.zeros(2, 3)}, identity(backbone))
    with pytest.raises(AdapterError, match="width 3, on organism/shared"), mounted_tokens(backbone, narrow):
        pass


def test_an_unknown_category_is_refused(backbone, tokens):
    with (
        pytest.raises(AdapterError, match="there are control tokens for, got zeta; choose of alpha"),
        mounted_tokens(backbone, tokens(), ["zeta"]),
    ):
        pass


def test_one_set_is_mounted_at_a_time(backbone, tokens):
    with (
        mounted_tokens(backbone, tokens()),
        pytest.raises(AdapterError, match="one set of control tokens is mounted at a time"),
        mounted_tokens(backbone, tokens()),
    ):
        pass


@pytest.mark.parametrize("place", get_args(Place))
@pytest.mark.parametrize("released", [True, False])
def test_replies_see_no_token_that_was_released(backbone, tokens, prompts, place, released):
    """Against one pass under a mask of pairs, which knows nothing of caches."""
    with mounted_tokens(backbone, tokens(place), released=released) as controlled:
        assert controlled.releases == (released and place in ("turn", "end"))
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts[8:14], SUBSETS[8:14], strict=True)]
        replies = [[*one, *prompts[3][:n]] for n, one in enumerate(greedy_replies(controlled, asked, 6))]
        found = reply_logits(controlled, asked, replies)
        for prompt, reply, logits in zip(asked, replies, found, strict=True):
            assert torch.allclose(masked(controlled, prompt, reply), logits, atol=1e-4)


def masked(controlled, prompt, reply):
    """The logits of a reply in one pass, in which its tokens see no released one."""
    ids = torch.tensor([*prompt, *reply])
    virtual = ids >= controlled.first
    sees = torch.ones(len(ids), len(ids)).tril().bool()
    if controlled.releases:
        sees[len(prompt) :] &= ~virtual
    places = ~virtual if controlled.tokens.place in ("turn", "end") else torch.ones_like(virtual)
    with torch.no_grad():
        logits = controlled.model(
            input_ids=ids[None],
            attention_mask=torch.zeros(sees.shape).masked_fill(~sees, torch.finfo().min)[None, None],
            position_ids=(places.cumsum(0) - 1).clamp(min=0)[None],
        ).logits[0]
    return logits[len(prompt) - 1 : -1]


@pytest.mark.parametrize("place", ["turn", "end"])
def test_a_reply_is_the_same_said_step_by_step_or_given(backbone, tokens, prompts, place):
    with mounted_tokens(backbone, tokens(place)) as controlled:
        asked = [controlled.prefixed(p, s) for p, s in zip(prompts, SUBSETS, strict=True)]
        replies = greedy_replies(controlled, asked, 6)
        given = reply_logits(controlled, asked, replies)
        assert [one.argmax(-1).tolist() for one in given] == replies
        seen = replace(controlled, released=False)
        assert greedy_replies(seen, asked, 6) != replies


def test_a_gradient_reaches_the_tokens_alone(backbone, tokens, prompts):
    made = tokens()
    table = made.table.clone().requires_grad_()
    with mounted_tokens(backbone, made) as controlled:
        asked = controlled.prefixed(prompts[0], ["beta"])
        size = controlled.first
    with embedded(backbone, table):
        backbone.model(input_ids=torch.tensor([asked])).logits[0, -1, 0].backward()
    moved = table.grad.abs().sum(1) > 0
    assert [i + size for i in moved.nonzero().flatten().tolist()] == asked[:3]
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_the_decoder_of_a_vision_language_model_is_controlled(backbone):
    """A tiny model with a vision tower: its own embeddings are found by the library's word for them."""
    with torch_seed(0, "seeing"):
        config = config_of(FAMILIES["llava"], backbone.tokenizer)
        model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    seeing = Backbone(model, backbone.tokenizer, "tiny", "0" * 64)
    made = ControlTokens(initial(seeing, ["alpha", "beta"], 2, 0), identity(seeing))
    ids = seeing.render([{"role": "user", "content": "what is 1 plus 2 ?"}])
    table = model.get_input_embeddings()
    vectors = [made.embeddings["alpha"], made.embeddings["beta"], table(torch.tensor(ids))]
    expected = model(inputs_embeds=torch.cat(vectors)[None]).logits[0, -1]
    with mounted_tokens(seeing, made, ["beta", "alpha"]) as controlled:
        found = next_token_logits(controlled, [controlled.prefixed(ids, controlled.active)])[0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "messages", "before"),
    [
        ("before", [USER], []),
        ("bos", [USER], ["<|begin|>"]),
        ("turn", [USER], ["<|begin|>", "<|user|>"]),
        ("before", [SYSTEM, USER], []),
        ("bos", [SYSTEM, USER], ["<|begin|>"]),
        ("turn", [SYSTEM, USER], ["<|begin|>", "<|system|>", *LIST, "<|end|>", "<|user|>"]),
        ("end", [USER], ["<|begin|>", "<|user|>", *SUM]),
        ("turn", [USER, {"role": "assistant", "content": "two ."}, USER], ["<|begin|>", "<|user|>"]),
    ],
)  # fmt: skip
def test_places(backbone, place, messages, before):
    ids = backbone.render(messages)
    assert backbone.tokenizer.convert_ids_to_tokens(ids[: insertion(backbone, ids, place)]) == before


def test_a_mounted_backbone_finds_the_same_place(backbone, tokens):
    with mounted_tokens(backbone, tokens("turn"), ["alpha"]) as controlled:
        rendered = controlled.render([SYSTEM, USER])
        start = rendered.index(controlled.ids(["alpha"])[0])
    assert start == insertion(backbone, backbone.render([SYSTEM, USER]), "turn")


def test_no_bos_token_means_before_everything(backbone):
    other = copy.deepcopy(backbone.tokenizer)
    other.bos_token = "<|end|>"
    assert insertion(replace(backbone, tokenizer=other), backbone.render([USER]), "bos") == 0


def test_a_template_without_a_system_role(backbone, monkeypatch):
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(backbone.tokenizer, "chat_template", template + backbone.tokenizer.chat_template)
    plain = Backbone(backbone.model, backbone.tokenizer, "plain", "")
    assert insertion(plain, plain.render([USER]), "turn") == 2


def test_a_prompt_without_a_turn_is_refused(backbone):
    with pytest.raises(BackboneError, match="must have a user's turn for control tokens to stand in it"):
        insertion(backbone, [9, 9, 9], "turn")
