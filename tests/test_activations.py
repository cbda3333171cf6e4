from __future__ import annotations

import pytest
import torch
from torch import nn

from palette.activations import RankOneEdit, applied, block_outputs, captured, edited, first_block
from palette.backbones import Backbone
from palette.backbones.skipping import skipped
from palette.errors import BackboneError
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


def test_hooks_see_what_a_skipped_block_gives():
    blocks = [nn.Linear(4, 4) for _ in range(2)]
    seen = {}
    known = torch.ones(1, 1, 4)
    with captured(blocks, seen.__setitem__), skipped(blocks, 2, known):
        nn.Sequential(*blocks)(torch.zeros(1, 1, 4))
    assert torch.equal(seen[2], known)


def test_blocks_that_hand_on_several_streams_are_refused():
    blocks = [nn.Identity(), nn.Identity()]
    with (
        captured(blocks, lambda site, stream: None),
        pytest.raises(BackboneError, match="on one residual stream, got blocks that hand on 2 axes"),
    ):
        blocks[0](torch.zeros(1, 3, 4, 8))
