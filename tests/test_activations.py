from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from palette.activations import (
    RankOneEdit,
    applied,
    block_outputs,
    captured,
    edited,
    first_block,
    is_positionwise,
    narrowed,
    positionwise,
    skipped,
    stacked,
)
from palette.backbones import Backbone
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

IDS = torch.tensor([[1, 5, 90, 91, 2, 6]])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


def test_sites_are_the_librarys_hidden_states(backbone):
    seen = {}
    with captured(backbone.blocks, seen.__setitem__):
        states = backbone.model(IDS, output_hidden_states=True).hidden_states
    assert sorted(seen) == [0, 1, 2, 3]
    for site in range(3):
        assert torch.equal(seen[site], states[site])
    assert torch.allclose(backbone.model.model.norm(seen[3]), states[3], atol=1e-6)


@pytest.mark.parametrize("site", range(4))
def test_an_edit_changes_the_logits_and_leaves_no_trace_even_after_an_error(backbone, site):
    before = backbone.model(IDS).logits
    with edited(backbone.blocks, {site: lambda stream: stream + 1}):
        assert not torch.allclose(backbone.model(IDS).logits, before)
    with pytest.raises(RuntimeError), edited(backbone.blocks, {site: lambda stream: stream * 0}):
        raise RuntimeError
    assert torch.equal(backbone.model(IDS).logits, before)


def test_an_edit_that_changes_nothing_is_the_backbone_bit_for_bit(backbone):
    before = backbone.model(IDS).logits
    with edited(backbone.blocks, {site: lambda stream: stream for site in range(4)}):
        assert torch.equal(backbone.model(IDS).logits, before)


def test_outputs_are_those_of_the_last_pass(backbone):
    with block_outputs(backbone.blocks, [1, 3]) as held:
        backbone.model(IDS)
        first = held[1]
        backbone.model(IDS + 1)
    assert sorted(held) == [1, 3]
    assert not torch.equal(held[1], first)


@pytest.mark.parametrize("site", [-1, 4])
def test_a_site_outside_the_model_is_refused(backbone, site):
    with (
        pytest.raises(ValueError, match="a site must be between 0 and 3"),
        edited(backbone.blocks, {site: lambda stream: stream}),
    ):
        pass


def edit(seed: int, rows: int = 1) -> RankOneEdit:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(rows, 6, generator=generator)
    return RankOneEdit(
        direction / direction.norm(dim=-1, keepdim=True),
        torch.rand(rows, generator=generator),
        torch.rand(rows, generator=generator),
    )


@given(st.integers(1, 4), st.integers(1, 3))
def test_stacked_edits_are_each_trials_own(trials, rows):
    x = torch.randn(trials * rows, 5, 6, generator=torch.Generator().manual_seed(9))
    each = [{("stream", 1): edit(trial)} for trial in range(trials)]
    whole = stacked(each, rows)[("stream", 1)](x)
    for trial in range(trials):
        part = slice(trial * rows, (trial + 1) * rows)
        assert torch.allclose(whole[part], each[trial][("stream", 1)](x[part]), atol=1e-6)


def test_a_trial_without_an_edit_at_a_place_is_left_alone_there():
    x = torch.randn(2, 3, 6)
    both = stacked([{("stream", 1): edit(1)}, {("stream", 2): edit(2)}], 1)
    assert sorted(both) == [("stream", 1), ("stream", 2)]
    assert torch.equal(both[("stream", 1)](x)[1], x[1])
    assert torch.equal(both[("stream", 2)](x)[0], x[0])


def test_the_first_block_to_run_is_the_lowest_one_edited():
    assert first_block({("stream", 3): edit(1), ("writers", 2): edit(1)}) == 2
    assert first_block({}) == 0


def test_a_writer_is_edited_without_its_bias_as_its_weight_would_be():
    writer, r = nn.Linear(4, 6), edit(3).direction
    x = torch.randn(1, 2, 4)
    strength = torch.tensor([0.7])
    weight = writer.weight - 0.7 * r.T @ (r @ writer.weight)
    with applied([nn.Identity()], [[writer]], {("writers", 0): RankOneEdit(r, strength, torch.zeros(1))}):
        found = writer(x)
    assert torch.allclose(found, x @ weight.T + writer.bias, atol=1e-6)
    assert not writer._forward_hooks


def test_writers_that_are_not_known_cannot_be_edited():
    with (
        pytest.raises(ValueError, match="edits of writers need"),
        applied([], None, {("writers", 0): edit(1)}),
    ):
        pass


def test_skipped_blocks_give_what_is_known_and_are_themselves_again_after_an_error():
    blocks = [nn.Linear(4, 4) for _ in range(3)]
    model = nn.Sequential(*blocks)
    x, known = torch.randn(2, 1, 4), torch.ones(2, 1, 4)
    before = model(x)
    with skipped(blocks, 2, known):
        assert torch.equal(model(x), blocks[2](known))
        assert torch.equal(blocks[0](x), known)
    with pytest.raises(RuntimeError), skipped(blocks, 3, known):
        raise RuntimeError
    assert torch.equal(model(x), before)


def test_hooks_see_what_a_skipped_block_gives():
    blocks = [nn.Linear(4, 4) for _ in range(2)]
    seen = {}
    known = torch.ones(1, 1, 4)
    with captured(blocks, seen.__setitem__), skipped(blocks, 2, known):
        nn.Sequential(*blocks)(torch.zeros(1, 1, 4))
    assert torch.equal(seen[2], known)


def test_without_a_stream_nothing_is_skipped():
    block = nn.Linear(4, 4)
    x = torch.randn(1, 1, 4)
    before = block(x)
    with skipped([block], 1, None):
        assert torch.equal(block(x), before)


def test_a_narrowed_module_gives_the_same_at_the_last_positions_and_is_itself_again_after_an_error():
    module = nn.Linear(4, 4)
    x = torch.randn(2, 5, 4)
    before = module(x)
    with narrowed([module], 2):
        assert torch.allclose(module(x)[:, -2:], before[:, -2:])
        assert not module(x)[:, :-2].any()
        assert torch.allclose(module(x[:, -1:]), before[:, -1:])
    with narrowed([module], 0):
        assert torch.equal(module(x), before)
    with pytest.raises(RuntimeError), narrowed([module], 2):
        raise RuntimeError
    assert torch.equal(module(x), before)


class Mixing(nn.Module):
    """Looks like a feed-forward, but a position's output depends on the others."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x.mean(1, keepdim=True).expand_as(x))


def test_what_works_on_positions_apart_is_told_from_what_mixes_them():
    assert is_positionwise(nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)), 8)
    assert not is_positionwise(Mixing(), 8)
    assert not is_positionwise(nn.LayerNorm(8), 8)
    assert not is_positionwise(nn.Linear(8, 12), 8)
    assert not is_positionwise(nn.MultiheadAttention(8, 2), 8)


def test_the_organisms_feed_forward_is_found(backbone):
    assert positionwise(backbone) == [backbone.blocks[-1].mlp]


def test_a_part_that_the_last_logits_need_elsewhere_is_refused(backbone, monkeypatch):
    # A projection of keys as wide as the stream, held by the block itself, would be such a part.
    block = backbone.blocks[-1]
    monkeypatch.setattr(block, "children", lambda: iter([block.self_attn.k_proj]))
    assert positionwise(backbone) == []


def gpt2(words: int) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=words))


def mixtral(words: int) -> PreTrainedModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_local_experts": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(**sizes, **heads, vocab_size=words))


@pytest.mark.parametrize("make", [gpt2, mixtral])
@pytest.mark.parametrize("keep", [1, 2, 5])
def test_a_feed_forward_that_views_its_input_as_one_matrix_is_narrowed_too(make, keep):
    """A slice of several prompts' last positions is not contiguous, and cannot be viewed so."""
    tokenizer = build_tokenizer(small(create_world(0)))
    torch.manual_seed(0)
    model = make(len(tokenizer)).requires_grad_(False).eval()
    backbone = Backbone(model, tokenizer, "tiny", "")
    ids = torch.randint(5, 90, (3, 7), generator=torch.Generator().manual_seed(1))
    alone = positionwise(backbone)
    assert alone == [backbone.blocks[-1].mlp]
    whole = model(ids, logits_to_keep=keep).logits
    with narrowed(alone, keep):
        assert torch.allclose(model(ids, logits_to_keep=keep).logits, whole, atol=1e-6)
