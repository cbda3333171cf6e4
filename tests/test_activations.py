from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from palette.activations import (
    RankOneEdit,
    applied,
    beginnings,
    block_outputs,
    captured,
    distinct,
    edited,
    first_block,
    is_positionwise,
    narrowed,
    placed,
    positionwise,
    skipped,
)
from palette.backbones import Backbone
from palette.backbones.scoring import padded
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


def edit(seed: int) -> RankOneEdit:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(1, 6, generator=generator)
    return RankOneEdit(
        direction / direction.norm(dim=-1, keepdim=True),
        torch.rand(1, generator=generator),
        torch.rand(1, generator=generator),
    )


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
    last = torch.arange(5) > 2
    places = distinct(torch.arange(10).view(2, 5), last.expand(2, 5))
    assert places.run.tolist() == [3, 4, 8, 9]
    with narrowed({module: places}):
        assert torch.allclose(module(x)[:, last], before[:, last])
    with pytest.raises(RuntimeError), narrowed({module: places}):
        raise RuntimeError
    assert torch.equal(module(x), before)


def test_positions_that_begin_alike_have_one_number_and_padding_is_never_run():
    batch = padded([[1, 5, 6], [1, 5], [5, 5]], [0, 1, 2], 0, torch.device("cpu"))
    numbers = beginnings(batch)
    assert numbers.tolist() == [[0, 1, 2], [0, 0, 1], [0, 3, 4]]
    places = distinct(numbers, batch.mask == 1)
    assert sorted(numbers.flatten()[places.run].tolist()) == [0, 1, 2, 3, 4]
    x = torch.randn(5, 4)[numbers]
    module = nn.Linear(4, 4)
    before = module(x)
    with narrowed({module: places}):
        assert torch.allclose(module(x)[batch.mask == 1], before[batch.mask == 1])


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
    head = backbone.model.get_output_embeddings()
    assert positionwise(backbone) == [*([block.mlp] for block in backbone.blocks), [head]]


def test_a_part_that_the_last_logits_need_elsewhere_is_refused(backbone, monkeypatch):
    # A projection of keys as wide as the stream, held by the block itself, would be such a part.
    block = backbone.blocks[-1]
    monkeypatch.setattr(block, "children", lambda: iter([block.self_attn.k_proj]))
    assert not any(positionwise(backbone))


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
    parts = positionwise(backbone)
    assert parts == [*([block.mlp] for block in backbone.blocks), [model.lm_head]]
    whole = model(ids, logits_to_keep=keep).logits
    read = (torch.arange(7) >= 7 - keep).expand(3, 7)
    with narrowed(placed(parts, torch.arange(21).view(3, 7), torch.ones_like(read), read, keep)):
        assert torch.allclose(model(ids, logits_to_keep=keep).logits, whole, atol=1e-6)
