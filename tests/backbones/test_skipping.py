from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from palette.backbones import Backbone
from palette.backbones.scoring import padded
from palette.backbones.skipping import (
    beginnings,
    distinct,
    is_positionwise,
    narrowed,
    placed,
    positionwise,
    skipped,
)
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


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
