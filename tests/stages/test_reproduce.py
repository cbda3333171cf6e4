"""A merge is made again from its header, or it is said why it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import WEIGHTS, write_adapter
from palette.errors import AdapterError
from palette.files import read_tensors, write_tensors
from palette.merging.settings import MergeSettings, MergeSource, merge_settings
from palette.merging.writing import merge_adapters
from palette.stages.merged import reproduce

Planter = Callable[[str, int], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    def write(domain: str, seed: int) -> Path:
        generator = torch.Generator().manual_seed(seed)
        modules = {
            f"layers.{layer}.{name}": LoraModule(
                torch.randn(3, 12, generator=generator), torch.randn(10, 3, generator=generator)
            )
            for layer in range(2)
            for name in ("up_proj", "down_proj")
        }
        write_adapter(tmp_path / domain, Adapter(modules, BackboneIdentity("tiny"), {"domains": [domain]}))
        return tmp_path / domain

    return write


SETTINGS = [
    MergeSettings(),
    MergeSettings(rank=4, dtype="bfloat16"),
    MergeSettings(energy=0.8),
    MergeSettings(method="dare_ties", options={"density": 0.4, "seed": 7}),
    MergeSettings(method="ties", compat="mergekit", rank=8),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_merge_is_made_again(plant: Planter, tmp_path: Path, settings: MergeSettings) -> None:
    law = MergeSource(path=plant("law", 1), weight=0.7)
    health = MergeSource(path=plant("health", 2), modules=("*", "!*.up_proj"))
    merge_adapters(settings.model_copy(update={"adapters": (law, health)}), tmp_path / "out")
    found = reproduce(tmp_path / "out" / WEIGHTS, output=tmp_path / "again")
    assert found["reproduced"] and found["digest"] == read_adapter(tmp_path / "out").digest
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "out" / WEIGHTS).read_bytes()


def test_moved_adapters_are_named(plant: Planter, tmp_path: Path) -> None:
    merge_adapters(merge_settings([plant("law", 1), plant("health", 2)]), tmp_path / "out")
    (tmp_path / "law").rename(tmp_path / "moved")
    with pytest.raises(AdapterError) as caught:
        reproduce(tmp_path / "out")
    digest = read_adapter(tmp_path / "moved").digest[:12]
    assert str(caught.value) == (
        "every adapter of a merge must be at hand to make it again, "
        f"got none of digest {digest}, once in ../law; name its folder with --from "
        f"({tmp_path / 'out' / WEIGHTS})"
    )
    assert reproduce(tmp_path / "out", [tmp_path / "moved"])["reproduced"]


def test_another_adapter_in_its_place_is_not_taken_for_it(plant: Planter, tmp_path: Path) -> None:
    merge_adapters(merge_settings([plant("law", 1), plant("health", 2)]), tmp_path / "out")
    shutil.rmtree(tmp_path / "law")
    plant("law", 3)
    with pytest.raises(AdapterError, match="must be at hand to make it again"):
        reproduce(tmp_path / "out")


def test_changed_weights_are_not_the_merge(plant: Planter, tmp_path: Path) -> None:
    merge_adapters(merge_settings([plant("law", 1), plant("health", 2)]), tmp_path / "out")
    path = tmp_path / "out" / WEIGHTS
    tensors, card = read_tensors(path)
    tensors[min(tensors)] *= 1.001
    write_tensors(path, tensors, card)
    with pytest.raises(AdapterError, match="a merge that is made again must have the same bytes, got others"):
        reproduce(path)


def test_only_a_merge_is_reproduced(plant: Planter) -> None:
    with pytest.raises(AdapterError, match="only a merge can be reproduced, got an adapter whose"):
        reproduce(plant("law", 1))
