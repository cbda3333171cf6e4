from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from palette.backbones import Backbone
from palette.directions import (
    CANDIDATES,
    INTERVENTIONS,
    Directions,
    Intervention,
    StrengthKernel,
    candidates,
    intervening,
    separation,
)
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

GENERATOR = torch.Generator().manual_seed(0)
DIRECTIONS = Directions(*(torch.randn(4, 2, 16, generator=GENERATOR, dtype=torch.float64) for _ in range(2)))
X = torch.randn(2, 3, 16, generator=GENERATOR)
R = DIRECTIONS.unit(2, -1).float()
IDS = torch.tensor([[1, 5, 90, 91, 2, 6]])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


def edit(method: str, strength: float):
    (found,) = Intervention(method, -1, StrengthKernel(2, 0, strength)).edits(DIRECTIONS).values()
    return found


def off_direction(x):
    return x - (x @ R).unsqueeze(-1) * R


def touches_the_direction_only(change) -> bool:
    return bool(torch.allclose(off_direction(change(X)), off_direction(X), atol=1e-5))


@pytest.mark.parametrize("method", INTERVENTIONS)
def test_every_method_moves_along_the_direction_only_and_linearly_in_strength(method):
    assert touches_the_direction_only(edit(method, 1.3))
    moved = [edit(method, strength)(X) - X for strength in (0.5, 1.0)]
    assert torch.allclose(2 * moved[0], moved[1], atol=1e-5)


def test_the_contract_catches_an_edit_that_moves_elsewhere():
    assert not touches_the_direction_only(lambda x: x * 0.9)


@pytest.mark.parametrize("method", INTERVENTIONS)
def test_strength_nought_is_the_backbone_bit_for_bit(backbone, method):
    before = backbone.model(IDS).logits
    with intervening(backbone, DIRECTIONS, Intervention(method, -1, StrengthKernel(2, 1, 0.0))):
        assert torch.equal(backbone.model(IDS).logits, before)
    with intervening(backbone, DIRECTIONS, Intervention(method, -1, StrengthKernel(2, 1, 2.0))):
        assert not torch.allclose(backbone.model(IDS).logits, before)
    assert torch.equal(backbone.model(IDS).logits, before)


def test_ablation_takes_the_component_away_and_twice_is_once():
    once = edit("directional_ablation", 1.0)(X)
    assert torch.allclose(once @ R, torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(edit("directional_ablation", 1.0)(once), once, atol=1e-5)


def test_centred_ablation_moves_the_component_to_the_benign_mean():
    centre = float(DIRECTIONS.benign[2, -1].float() @ R)
    assert torch.allclose(edit("centred_ablation", 1.0)(X) @ R, torch.full((2, 3), centre), atol=1e-5)


def test_addition_moves_the_target_mean_onto_the_benign_one():
    target = DIRECTIONS.target[2, -1].float().reshape(1, 1, 16)
    moved = edit("activation_addition", 1.0)(target)
    assert torch.allclose(moved, DIRECTIONS.benign[2, -1].float().reshape(1, 1, 16), atol=1e-5)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        Intervention("magic", -1, StrengthKernel(1, 0, 1.0)).edits(DIRECTIONS)


@given(st.integers(1, 9), st.integers(0, 4), st.floats(0.1, 3), st.integers(0, 12))
def test_the_kernel_peaks_and_falls_to_nought(peak, width, strength, site):
    kernel = StrengthKernel(peak, width, strength)
    assert kernel.at(peak) == strength
    assert 0 <= kernel.at(site) <= strength
    assert (kernel.at(site) == 0) == (abs(site - peak) > width)


@pytest.mark.parametrize("width", [0, 2])
def test_weight_orthogonalisation_is_the_edited_weights(backbone, width):
    intervention = Intervention("weight_orthogonalisation", -1, StrengthKernel(2, width, 0.8))
    with intervening(backbone, DIRECTIONS, intervention):
        hooked = backbone.model(IDS).logits
    edited = copy.deepcopy(backbone.model)
    for (_, block), change in intervention.edits(DIRECTIONS).items():
        r, strength = change.direction[0], change.slope[0]
        layer = edited.model.layers[block]
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight.data -= strength * torch.outer(r, r @ linear.weight)
    assert torch.allclose(edited(IDS).logits, hooked, atol=1e-5)
    assert not torch.allclose(backbone.model(IDS).logits, hooked, atol=1e-3)


def test_weight_orthogonalisation_turns_a_weight_that_lies_the_other_way_round():
    """GPT-2's Conv1D keeps [d_in, d_out], and its attention's is square, so that no shape tells."""
    tokenizer = build_tokenizer(small(create_world(0)))
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    model = GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=len(tokenizer))).requires_grad_(False).eval()
    backbone = Backbone(model, tokenizer, "tiny", "")
    intervention = Intervention("weight_orthogonalisation", -1, StrengthKernel(2, 1, 0.8))
    before = model(IDS).logits
    with intervening(backbone, DIRECTIONS, intervention):
        hooked = model(IDS).logits
    edited = copy.deepcopy(model)
    for (_, block), change in intervention.edits(DIRECTIONS).items():
        r, strength = change.direction[0], change.slope[0]
        for conv in (edited.transformer.h[block].attn.c_proj, edited.transformer.h[block].mlp.c_proj):
            conv.weight.data -= strength * torch.outer(conv.weight @ r, r)
    assert torch.allclose(edited(IDS).logits, hooked, atol=1e-5)
    assert not torch.allclose(before, hooked, atol=1e-3)


def test_candidates_have_the_properties_that_name_them():
    target, pooled, benign = (
        torch.randn(3, 2, 8, generator=GENERATOR, dtype=torch.float64) for _ in range(3)
    )
    concepts = [benign + torch.randn(3, 2, 8, generator=GENERATOR, dtype=torch.float64) for _ in range(2)]
    factor = torch.randn(3, 2, 8, 8, generator=GENERATOR, dtype=torch.float64)
    within = factor @ factor.transpose(-1, -2) + torch.eye(8, dtype=torch.float64)
    found = candidates(target, pooled, benign, concepts, within)
    assert tuple(found) == CANDIDATES
    for directions in found.values():
        assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 2, dtype=torch.float64))
    assert (found["projected"] * benign).sum(-1).abs().max() < 1e-9
    before = (found["difference"] * (concepts[0] - benign)).sum(-1).abs()
    assert bool(((found["cleaned"] * (concepts[0] - benign)).sum(-1).abs() < before).all())
    apart = {name: separation(r, target - benign, within) for name, r in found.items()}
    assert bool((apart["whitened"] >= apart["difference"] - 1e-9).all())
    assert "whitened" not in candidates(target, pooled, benign, concepts, None)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="a direction must be one of"):
        DIRECTIONS.unit(1, -1, "north")
