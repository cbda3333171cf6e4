"""Direct attribution: parts add up to the stream that Palette's own hooks read, adapter off and on."""

from __future__ import annotations

import pytest
import torch

from palette import organism
from palette.activations import captured
from palette.adapters.mounting import mounted
from palette.backbones import load_backbone
from palette.backbones.hook_points import ATTENTION, MLP
from palette.errors import BackboneError
from palette.evaluation import attribution
from palette.evaluation.attribution import Written, bridged, written
from palette.stages.attribute import draw, moved
from tests.fixtures.bridged import adapter_on, backbone_of, lens

PROMPTS = [[1, 5, 6, 7, 8], [1, 9, 10]]
POSITION = -2
# Other people's warnings while their modules are made.
pytestmark = [pytest.mark.filterwarnings("ignore")]


def stream(backbone, adapter, r):
    """r·x at every site, as Palette reads it: a mean over the prompts."""
    found = []
    for ids in PROMPTS:
        seen = {}
        on = mounted(backbone.model, adapter) if adapter else mounted(backbone.model)
        with torch.no_grad(), on, captured(backbone.blocks, seen.__setitem__):
            backbone.model(input_ids=torch.tensor([ids]))
        found.append([float(seen[site][0, POSITION].double() @ r) for site in sorted(seen)])
    return torch.tensor(found).mean(0)


@lens
@pytest.mark.parametrize(
    ("kind", "leaf"),
    [("organism", "o_proj"), ("organism", "down_proj"), ("gpt2", "attn.c_proj"), ("gemma2", "o_proj")],
)
def test_parts_add_up_to_the_stream_that_our_hooks_read(tmp_path, kind, leaf):
    backbone = backbone_of(kind, tmp_path)
    r = torch.nn.functional.normalize(
        torch.randn(backbone.width, generator=torch.Generator().manual_seed(1)), dim=0
    ).double()
    totals = []
    for adapter in (None, adapter_on(backbone, leaf)):
        parts, sites = written(backbone, PROMPTS, r, POSITION, adapter), stream(backbone, adapter, r)
        assert parts.embedded == pytest.approx(float(sites[0]), abs=1e-4)
        for layer in range(backbone.layers):
            added = parts.attention[layer] + parts.mlp[layer] + parts.rest[layer]
            assert added == pytest.approx(float(sites[layer + 1] - sites[layer]), abs=1e-3)
            assert parts.rest[layer] == pytest.approx(0.0, abs=1e-3)
        assert parts.total == pytest.approx(float(sites[-1]), abs=1e-3)
        totals.append(parts.total)
        if kind == "organism":
            assert parts.heads is not None
            for layer, heads in enumerate(parts.heads):
                assert sum(heads) == pytest.approx(parts.attention[layer], abs=1e-3)
                assert len(heads) == 4
        if kind == "gemma2":
            assert parts.heads is None, "a norm stands between heads and the stream"
    assert abs(totals[0] - totals[1]) > 1e-2, "the adapter is seen"


@lens
def test_the_bridge_leaves_the_backbone_as_it_was():
    backbone = load_backbone(organism.weights("shared"))
    kinds = [type(module) for module in backbone.model.modules()]
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        before = backbone.model(input_ids=ids).logits
        with bridged(backbone, adapter_on(backbone, "o_proj")) as bridge:
            said, cache = bridge.run_with_cache(ids)
        assert {ATTENTION.format(0), MLP.format(3)} <= set(cache)
        assert not torch.allclose(said, before, atol=1e-3)
        assert torch.equal(backbone.model(input_ids=ids).logits, before)
        with bridged(backbone) as bridge:
            assert torch.allclose(bridge(ids), before, atol=1e-5)
    assert [type(module) for module in backbone.model.modules()] == kinds


def test_without_the_package_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(attribution, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r"by the package transformer-lens, .*'palette-llm\[lens\]'"):
        written(load_backbone(organism.weights("shared")), PROMPTS, torch.ones(80).double(), -1)


def test_what_moved_most_is_named_by_its_hook_and_drawn(tmp_path):
    base = Written(embedded=1.0, attention=[1.0, 2.0], mlp=[0.5, 0.5], rest=[0.0, 0.0], heads=None)
    adapted = Written(embedded=1.0, attention=[1.0, 1.5], mlp=[0.5, -1.0], rest=[0.0, 0.0], heads=None)
    assert base.total == 5.0 and base.scaled(2.0).total == 2.5
    assert moved(base, adapted) == {"hook": "blocks.1.hook_mlp_out", "by": -1.5}
    assert moved(base) == {"hook": "blocks.1.hook_attn_out", "by": 2.0}
    found = {"restricted": {"base": base.model_dump(), "adapted": adapted.model_dump()}}
    for name in ("one", "two"):
        draw({"law": found, "medicine": found}, tmp_path / f"{name}.svg")
    one, two = ((tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
    assert one == two and b"<svg" in one
