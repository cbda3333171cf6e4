"""An exact sum gives its members back, or goes on without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError
from palette.merging.settings import merge_settings
from palette.merging.writing import MergeReport, merge_adapters
from palette.stages.merged import unmerge

Planter = Callable[..., Path]
DOMAINS = ("energy", "health", "law")


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    def write(domain: str, seed: int, layers: tuple[int, ...] = (0, 1)) -> Path:
        generator = torch.Generator().manual_seed(seed)
        modules = {
            f"layers.{layer}.up_proj": LoraModule(
                torch.randn(2 + seed, 12, generator=generator), torch.randn(10, 2 + seed, generator=generator)
            )
            for layer in layers
        }
        write_adapter(tmp_path / domain, Adapter(modules, BackboneIdentity("tiny"), {"domains": [domain]}))
        return tmp_path / domain

    return write


def merge(paths: list[Path], output: Path, **options: object) -> MergeReport:
    return merge_adapters(merge_settings(paths, options), output)


@pytest.mark.parametrize("layers", [(0, 1), (1,)])
@pytest.mark.parametrize("member", DOMAINS)
def test_a_member_comes_back_to_the_last_bit(
    plant: Planter, tmp_path: Path, member: str, layers: tuple[int, ...]
) -> None:
    paths = [plant("energy", 0), plant("health", 1, layers), plant("law", 2)]
    merge(paths, tmp_path / "all")
    found = unmerge(tmp_path / "all", member, tmp_path / "out")
    own = read_adapter(tmp_path / member)
    assert found["same_as_merged"] and found["digest"] == own.digest
    assert read_adapter(tmp_path / "out").digest == own.digest
    assert read_adapter(tmp_path / "out").domains == (member,)
    rest = unmerge(tmp_path / "all", own.digest[:8], tmp_path / "rest", rest=True)
    others = [path for path in paths if path.name != member]
    assert rest["digest"] == merge(others, tmp_path / "others").digest
    assert rest["domains"] == sorted(path.name for path in others)


def test_a_weight_is_taken_off_again(plant: Planter, tmp_path: Path) -> None:
    paths = [plant("energy", 0), plant("law", 2)]
    merge(paths, tmp_path / "all", weights=(0.3, -1.7))
    unmerge(tmp_path / "all", "law", tmp_path / "out")
    for name, module in read_adapter(tmp_path / "law").modules.items():
        error = read_adapter(tmp_path / "out").modules[name].delta() - module.delta()
        assert error.norm() <= 1e-6 * module.norm()


@pytest.mark.parametrize(
    ("settings", "member", "message"),
    [
        (dict(), "finance", "one adapter of the merge must be meant, got 'finance', which names 0"),
        (dict(rank=3), "law", "only an exact sum can be taken apart"),
        (dict(method="ties", rank=8), "law", "only an exact sum can be taken apart"),
        (dict(weights=(1.0, 0.0)), "law", "what was merged at weight 0 is not in the sum"),
    ],
)
def test_what_cannot_be_taken_apart_is_said(
    plant: Planter, tmp_path: Path, settings: dict[str, object], member: str, message: str
) -> None:
    merge([plant("energy", 0), plant("law", 2)], tmp_path / "all", **settings)
    with pytest.raises(AdapterError, match=message):
        unmerge(tmp_path / "all", member, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_merge_is_not_taken_apart(plant: Planter, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="does not say which components are whose"):
        unmerge(plant("law", 1), "law", tmp_path / "out")
