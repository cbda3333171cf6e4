"""Hook points: found without a module's name, in every family that people use, or refused by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

from palette import organism
from palette.backbones import load_backbone
from palette.backbones.hook_points import ATTENTION, HEADS, MLP, POST, PRE, hook_points, hooked
from palette.errors import BackboneError
from tests.fixtures.families import FAMILIES, build

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[1, 5, *range(90, 98), 2], [1, 6, *range(120, 128), 3]])
ALONE = UNHEADED = {"Mamba"}
"""Families of whose blocks every part reads other positions, and none has heads."""
REFUSED = {"MiniMax", "RWKV"}
"""Families whose blocks scale the stream itself."""


def names(quick: bool) -> list:
    marks = [] if quick else [pytest.mark.slow]
    known = [name for name, each in FAMILIES.items() if each.quick == quick and not each.refused]
    return [pytest.param(name, marks=marks) for name in known]


def made(name, folder):
    build(FAMILIES[name]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(organism.weights()).save_pretrained(folder)
    return load_backbone(folder, name)


@torch.no_grad()
def said(backbone, ids):
    return backbone.model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("name", [*names(quick=True), *names(quick=False)])
def test_embeddings_and_parts_of_another_run_make_it_that_run(tmp_path, name):
    """Alone, no part does; and without the embeddings the parts do not."""
    backbone = made(name, tmp_path)
    if name in REFUSED:
        with pytest.raises(BackboneError, match="which adds more than its modules give"):
            hook_points(backbone)
        return
    points = hook_points(backbone)
    parts = [point for point in points if not point.endswith(("hook_z", "resid_pre", "resid_post"))]
    attention = [ATTENTION.format(layer) for layer in range(backbone.layers)]
    assert any(each in points for each in attention)
    assert any(each.endswith("hook_mlp_out") for each in parts) or name in ALONE
    assert any(each.endswith("hook_z") for each in points) or name in UNHEADED
    kept: dict[str, dict[int, torch.Tensor]] = {each: {} for each in points}

    def keep(name, number, value):
        kept[name][number] = value.clone()
        return value

    with hooked(points, {each: partial(keep, each) for each in points}):
        first = said(backbone, IDS[:1])
    second = said(backbone, IDS[1:])
    put = {each: lambda number, value, each=each: kept[each][number] for each in points}
    last = POST.format(backbone.layers - 1)
    tried = (([PRE.format(0), *parts], 0.0, 1e-4), (parts, 1e-3, 1e9), ([last], 0.0, 1e-4))
    for chosen, least, most in tried:
        with hooked(points, {each: put[each] for each in chosen}):
            apart = (said(backbone, IDS[1:]) - first).abs().max() / first.abs().max()
        assert least <= float(apart) <= most, chosen
    assert torch.equal(said(backbone, IDS[1:]), second), "no hook is left"


def test_the_organism_has_every_point_in_the_order_in_which_it_runs():
    backbone = load_backbone(organism.weights("shared"))
    points = hook_points(backbone)
    forms = (PRE, HEADS, ATTENTION, MLP)
    assert list(points) == [form.format(layer) for layer in range(4) for form in forms] + [POST.format(3)]
    block = backbone.blocks[2]
    assert points[ATTENTION.format(2)].modules == (block.self_attn,)
    assert points[MLP.format(2)].modules == (block.mlp,)
    assert (points[HEADS.format(2)].modules, points[HEADS.format(2)].heads) == ((block.self_attn.o_proj,), 4)


def test_a_block_that_adds_something_of_its_own_is_refused_by_name(monkeypatch):
    backbone = load_backbone(organism.weights("shared"))
    block = backbone.blocks[2]
    plain = block.forward
    monkeypatch.setattr(block, "forward", lambda stream, **more: plain(stream, **more) + 0.1 * stream)
    with pytest.raises(BackboneError) as caught:
        hook_points(backbone)
    sentence = str(caught.value)
    assert "where modules give all that the block adds, at each position, got block 2 (LlamaDec" in sentence
    assert "which adds more than its modules give; leave --patching out" in sentence
