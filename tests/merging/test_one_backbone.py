"""Adapters of one backbone whose names differ: of the backbone, and of its layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity
from palette.adapters.writing import WEIGHTS, write_adapter
from palette.errors import AdapterError
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_adapters
from palette.stages.inspect import inspect
from palette.stages.merged import reproduce, unmerge

Maker = Callable[..., Adapter]
TAILS = ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj")


@pytest.fixture
def named(random_adapter: Maker, tmp_path: Path) -> Callable[..., Path]:
    """A function of a seed, a prefix of the layers and a backbone that writes an adapter."""

    def write(
        seed: int, prefix: str = "model.", *backbone: str | None, tails: tuple[str, ...] = TAILS
    ) -> Path:
        adapter = random_adapter(seed, shapes={f"{prefix}{tail}": (9, 8) for tail in tails})
        folder = tmp_path / f"a{seed}-{len(list(tmp_path.iterdir()))}"
        write_adapter(folder, Adapter(adapter.modules, BackboneIdentity(*(backbone or ("tiny",)))))
        return folder

    return write


def merged(*folders: Path, **options: object) -> Path:
    out = folders[0].parent / f"out{len(list(folders[0].parent.iterdir()))}"
    merge_adapters(merge_settings(list(folders), options), out)
    return out


@pytest.mark.parametrize("own", ["model.language_model.", "language_model.model.", "model.text_model."])
def test_a_decoder_that_is_named_as_two_classes_name_it_adds_up(named: Callable[..., Path], own: str) -> None:
    text, seeing = named(1), named(2, own)
    outs = [merged(*order) for order in permutations((text, seeing))]
    assert len({(out / WEIGHTS).read_bytes() for out in outs}) == 1
    result = read_adapter(outs[0])
    assert sorted(result.modules) == [own + tail for tail in TAILS]
    for tail in TAILS:
        expected = sum(
            read_adapter(folder).modules[prefix + tail].delta()
            for folder, prefix in ((text, "model."), (seeing, own))
        )
        assert torch.allclose(result.modules[own + tail].delta(), expected, atol=1e-5)
    assert reproduce(outs[0])["reproduced"]
    back = unmerge(outs[0], read_adapter(text).digest[:12], outs[0].parent / "back")
    assert read_adapter(Path(back["output"])).modules.keys() == result.modules.keys()


def test_globs_are_of_an_adapter_s_own_names(random_adapter: Maker) -> None:
    text = random_adapter(1, shapes={f"model.{tail}": (9, 8) for tail in TAILS})
    seeing = random_adapter(2, shapes={f"model.language_model.{tail}": (9, 8) for tail in TAILS})
    inputs = [MergeInput(text, globs=("model.layers.0.*",)), MergeInput(seeing)]
    result, _ = combine(inputs)
    assert [module.rank for _, module in sorted(result.modules.items())] == [6, 3]


@pytest.mark.parametrize("prefix", ["wrapped.model.", "", "foo.bar.", "transformer."])
def test_layers_under_an_unknown_prefix_are_refused(named: Callable[..., Path], prefix: str) -> None:
    one, other = named(1), named(2, prefix)
    with pytest.raises(AdapterError) as caught:
        merged(one, other)
    assert str(caught.value) == (
        f"adapters of one backbone must name its layers alike, got model.layers in {one} and {prefix}layers "
        f"in {other}; save one of them again from the class of the model that the other was trained on"
    )
    # The remedy helps.
    merged(one, named(2, "model."))


def test_an_adapter_that_names_the_decoder_twice_is_refused(random_adapter: Maker) -> None:
    shapes = {f"{prefix}{TAILS[0]}": (9, 8) for prefix in ("model.", "model.language_model.")}
    half = random_adapter(1, shapes=shapes)
    with pytest.raises(AdapterError, match="must name its layers as one class of the model does, got layers"):
        combine([MergeInput(half)])
    # The remedy helps.
    combine([MergeInput(half, globs=("model.layers.*",))])


@pytest.mark.parametrize(
    "others",
    [
        ("model.", ("layers.7.mlp.up_proj",)),
        ("model.vision_tower.encoder.", TAILS),
        ("", ("lm_head",)),
        ("visual.", ("blocks.0.attn.qkv",)),
    ],
)
def test_other_modules_of_one_model_are_united(
    named: Callable[..., Path], others: tuple[str, tuple[str, ...]]
) -> None:
    out = merged(named(1), named(2, others[0], tails=others[1]))
    assert len(read_adapter(out).modules) == len(TAILS) + len(others[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/data/models/x", "/data/models/x/"),
        ("./x", "x"),
        (None, "owner/x"),
        ("Owner/X", "owner/x"),
        ("/home/a/hub/models--owner--x/snapshots/0123", "owner/x"),
    ],
)
def test_other_spellings_are_one_backbone(
    named: Callable[..., Path], one: str | None, other: str | None
) -> None:
    pair = named(1, "model.", one), named(2, "model.", other)
    card = read_adapter(merged(*pair)).card
    assert "same_backbone" not in card
    assert read_adapter(merged(*pair, same_backbone=True)).card == card


@pytest.mark.parametrize("other", ["unsloth/x-bnb-4bit", "/data/models/x", "x", "owner/y"])
def test_other_names_are_one_backbone_where_that_is_said(named: Callable[..., Path], other: str) -> None:
    pair = named(1, "model.", "owner/x"), named(2, "model.", other)
    with pytest.raises(AdapterError) as caught:
        merged(*pair)
    assert "; if both names mean one model, quantised or not, say so with --same-backbone" in str(
        caught.value
    )
    out = merged(*pair, same_backbone=True)
    assert read_adapter(out).card["same_backbone"] is True
    assert reproduce(out)["reproduced"]


def test_digests_are_proof_against_any_word(named: Callable[..., Path]) -> None:
    pair = named(1, "model.", "x", "f" * 64), named(2, "model.", "x", "e" * 64)
    with pytest.raises(AdapterError, match="their digests differ: train one of them again on the other's"):
        merged(*pair, same_backbone=True)
    assert merged(named(1, "model.", "x", "f" * 64), named(2, "model.", "y", "f" * 64))


def test_inspect_compares_what_is_one_module(named: Callable[..., Path]) -> None:
    same = [named(1), named(1, "model.language_model.")]
    assert inspect(same)["cosines"][0][1] == pytest.approx(1.0)
    assert inspect([named(1), named(2, "foo.")])["cosines"][0][1] is None
