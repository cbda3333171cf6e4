"""The commands on adapters alone, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import WEIGHTS, write_adapter

Palette = Callable[..., tuple[int, str, str]]
DOMAINS = ("energy", "health", "law")


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Three adapters of one backbone, each with a domain."""
    for seed, domain in enumerate(DOMAINS):
        generator = torch.Generator().manual_seed(seed)
        modules = {
            f"layers.{layer}.{name}": LoraModule(
                torch.randn(2, 12, generator=generator), torch.randn(10, 2, generator=generator)
            )
            for layer in range(2)
            for name in ("up_proj", "down_proj")
        }
        write_adapter(tmp_path / domain, Adapter(modules, BackboneIdentity("tiny"), {"domains": [domain]}))
    return [tmp_path / domain for domain in DOMAINS]


def test_merge_reproduce_and_unmerge(palette: Palette, adapters: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "all"
    assert palette("merge", *adapters, "-o", out, "--quiet") == (0, "", "")
    status, said, _ = palette("reproduce", out / WEIGHTS)
    assert status == 0
    assert said.startswith("the same bytes: ")
    status, said, _ = palette("unmerge", out, "law", "-o", tmp_path / "back")
    assert status == 0
    assert said.startswith("taken out: law, to the last bit what was merged")
    assert (tmp_path / "back" / WEIGHTS).is_file()
    status, said, _ = palette("unmerge", out, "law", "--rest", "-o", tmp_path / "rest", "--json")
    assert status == 0
    assert json.loads(said)["domains"] == ["energy", "health"]


def test_options_reach_the_method(palette: Palette, adapters: list[Path], tmp_path: Path) -> None:
    status, said, _ = palette(
        "merge", *adapters, "-o", tmp_path / "out", "--method", "dare_ties", "--option", "density=0.4",
        "--option", "seed=3", "--compat", "peft", "--weights", "1,0.5,0.2", "--dtype", "bfloat16",
        "--energy", "0.9", "--json",
    )  # fmt: skip
    assert status == 0
    found = json.loads(said)
    assert found["options"]["density"] == 0.4
    assert (found["options"]["seed"], found["options"]["elect"]) == (3, "before")
    assert found["weights"] == [1.0, 0.5, 0.2]
    assert found["dtype"] == "bfloat16"
    assert 0.9 <= found["retained_energy"] < 1


def test_a_merge_recipe(palette: Palette, adapters: list[Path], tmp_path: Path) -> None:
    recipe = tmp_path / "all.yaml"
    recipe.write_text(
        "method: ties\noptions: {density: 0.5}\nadapters:\n"
        "  - law\n  - {path: health, weight: 0.5, modules: ['*.up_proj']}\n"
    )
    status, said, _ = palette("merge", recipe, "-o", tmp_path / "out", "--rank", 4, "--json")
    assert status == 0
    found = json.loads(said)
    assert (found["method"], found["rank"], found["weights"]) == ("ties", 4, [1.0, 0.5])
    assert found["inputs"][1]["modules"] == ["*.up_proj"]
    status, said, _ = palette("reproduce", tmp_path / "out", "--json")
    assert (status, json.loads(said)["reproduced"]) == (0, True)


def test_inspect_draws_what_it_says(palette: Palette, adapters: list[Path], tmp_path: Path) -> None:
    picture = tmp_path / "interference.svg"
    status, said, _ = palette("inspect", *adapters, "--picture", picture)
    assert status == 0
    for title in ("cosine of ΔW", "shared inputs", "sign conflict", "row's share of the energy"):
        assert title in said
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    before = picture.read_bytes()
    palette("inspect", *adapters, "--picture", picture, "--quiet")
    assert picture.read_bytes() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("merge energy law --method sum", "method: a merge method must be one of weighted_sum, ties"),
        ("merge energy law --option density=2 --method ties", "density: input should be less than or equal"),
        ("merge energy law --into energy -o out", "must have a weight for layers.0.down_proj, got none"),
        ("merge energy law --energy 0", "energy: input should be greater than 0"),
        ("inspect energy --picture p.svg", "an .svg or .png of at least two adapters, got p.svg of 1"),
        ("inspect energy law --picture p.pdf", "got p.pdf of 2"),
        ("merge law law", "an adapter may be given once, got the same one as law"),
        ("reproduce energy", "only a merge can be reproduced"),
        ("unmerge energy energy", "only an exact sum can be taken apart"),
        (
            "attribute energy --ids a",
            "ids choose the prompts of activation patching, got no --patching; give",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    palette: Palette,
    adapters: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    status, said, error = palette(*call.split())
    assert (status, said) == (2, "")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_inspect_draws_a_model_and_export_and_attribute_name_what_is_missing(
    palette: Palette, adapters: list[Path], tmp_path: Path
) -> None:
    status, said, error = palette("inspect", "organism/shared")
    assert (status, error) == (0, "")
    assert "blocks 0–3" in said and said.count("⊕◂┘") == 2 and "ends with" not in error
    status, said, _ = palette("inspect", "organism/shared", "--json")
    assert status == 0 and json.loads(said)["kinds"][0]["writers"] == ["self_attn.o_proj", "mlp.down_proj"]
    for arguments in (("export", adapters[0], "--to", "gguf"), ("attribute", adapters[0])):
        status, said, error = palette(*arguments)
        assert (status, said) == (2, "") and error.count("\n") == 1 and "report" in error
    status, _, error = palette("export", adapters[0], "--to", "onnx")
    assert status == 2 and "a format must be one of gguf, control-vector, steering-vector" in error
    assert not list(tmp_path.rglob("*.gguf")) and not list(tmp_path.rglob("attribute"))
