from __future__ import annotations

import pytest
import torch

from palette.activations import block_outputs, captured, edited
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
