"""A merge as it is written, from folders to a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError, OutputError, PaletteError, RecipeError
from palette.merging.inputs import MergeInput, default_output
from palette.merging.methods import TABLE
from palette.merging.settings import merge_settings
from palette.merging.writing import RECORD, MergeReport, merge_adapters

IDENTITY = BackboneIdentity("tiny", "f" * 64)
Planter = Callable[..., Path]


def random_adapter(seed: int, rank: int = 3, **card: object) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {
        f"layers.{layer}.down_proj": LoraModule(
            torch.randn(rank, 12, generator=generator), torch.randn(10, rank, generator=generator)
        )
        for layer in range(2)
    }
    return Adapter(modules, IDENTITY, card)


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    """A function that writes a random adapter of a domain and gives its folder."""

    def write(domain: str, seed: int, rank: int = 3) -> Path:
        folder = tmp_path / "adapters" / domain
        write_adapter(folder, random_adapter(seed, rank, domains=[domain]))
        return folder

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def merge(paths: Sequence[Path], output: Path | None = None, **options: object) -> MergeReport:
    return merge_adapters(merge_settings(paths, options), output)


def total(*paths: Path) -> torch.Tensor:
    return sum(read_adapter(path).modules["layers.0.down_proj"].delta() for path in paths)


def test_a_merge_adds_and_says_so(plant: Planter, tmp_path: Path) -> None:
    medical, legal = plant("medical", 1), plant("legal", 2)
    out = tmp_path / "out"
    result = merge([medical, legal / "adapter_model.safetensors"], out).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    merged = read_adapter(out)
    expected = total(medical, legal)
    error = merged.modules["layers.0.down_proj"].delta() - expected
    assert error.norm() <= 1e-6 * expected.norm()
    assert result == {
        "output": str(out),
        "digest": merged.digest,
        "method": "weighted_sum",
        "options": {},
        "inputs": [
            {
                "path": str(medical),
                "digest": read_adapter(medical).digest,
                "weight": 1.0,
                "domains": ["medical"],
            },
            {
                "path": str(legal / "adapter_model.safetensors"),
                "digest": read_adapter(legal).digest,
                "weight": 1.0,
                "domains": ["legal"],
            },
        ],
        "weights": [1.0, 1.0],
        "domains": ["legal", "medical"],
        "backbone": {"name": "tiny", "fingerprint": "f" * 64},
        "rank": 6,
        "written_rank": 8,
        "dtype": "float32",
        "retained_energy": 1.0,
        "worst_module": {"name": "layers.0.down_proj", "retained_energy": 1.0},
    }
    assert sorted(contents(out)) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "merge.json",
        "run.json",
    ]
    assert merged.domains == ("legal", "medical")


def test_order_and_repetition_change_no_byte(plant: Planter, tmp_path: Path) -> None:
    medical, legal = plant("medical", 1), plant("legal", 2)
    out = tmp_path / "out"
    merge([medical, legal], out, weights=(1, 0.5))
    before = contents(out)
    merge([legal, medical], out, weights=(0.5, 1))
    assert contents(out) == before
    moved = medical.rename(tmp_path / "elsewhere")
    merge([moved, legal], tmp_path / "other", weights=(1, 0.5))
    other = contents(tmp_path / "other")
    assert {name for name in other if other[name] != before[name]} == {RECORD}


def test_one_adapter_alone_is_itself(plant: Planter, tmp_path: Path) -> None:
    medical = plant("medical", 1)
    result = merge([medical], tmp_path / "out")
    assert result.digest == read_adapter(medical).digest == read_adapter(tmp_path / "out").digest
    assert result.retained_energy == 1.0


def test_a_smaller_rank_states_what_it_keeps(plant: Planter, tmp_path: Path) -> None:
    paths = [plant(domain, seed) for seed, domain in enumerate(("medical", "legal", "energy"))]
    result = merge(paths, tmp_path / "out", rank=4)
    assert (result.rank, result.written_rank) == (4, 8)
    assert 0.3 < result.worst_module["retained_energy"] <= result.retained_energy < 1.0
    merged, expected = total(tmp_path / "out"), total(*paths)
    assert torch.linalg.matrix_rank(merged, rtol=1e-5) == 4
    assert 0 < (merged - expected).norm() < expected.norm()


def test_ties_is_a_setting_away(plant: Planter, tmp_path: Path) -> None:
    paths = [plant("medical", 1), plant("legal", 2)]
    result = merge(paths, tmp_path / "out", method="ties", options={"density": 0.5})
    options = {"density": 0.5, "trim": "tensor", "elect": "after", "divide": "count"}
    assert (result.method, result.options) == ("ties", options)
    assert read_adapter(tmp_path / "out").card["method"] == "ties"


def refused(kind: type[PaletteError], *arguments: object, **options: object) -> str:
    with pytest.raises(kind) as caught:
        merge(*arguments, **options)
    return str(caught.value)


def test_the_callers_mistakes_are_named(plant: Planter, tmp_path: Path) -> None:
    medical, legal = plant("medical", 1), plant("legal", 2)
    out = tmp_path / "out"
    assert refused(RecipeError, [], out) == "a merge must have at least one adapter, got none"
    assert refused(RecipeError, [medical, legal], out, weights=(1,)) == (
        "a merge must have one weight for each adapter, got 1 for 2 (merge.weights)"
    )
    assert refused(RecipeError, [medical], out, options={"density": 0.5}) == (
        "density is not a key of a merge by weighted_sum (merge.options)"
    )
    assert refused(RecipeError, [medical], out, method="svc", compat="peft") == (
        "compat peft must know the method, got svc; leave compat out, or set the options"
    )
    copy = tmp_path / "copy"
    write_adapter(copy, read_adapter(medical))
    assert refused(AdapterError, [medical, legal, copy], out) == (
        f"an adapter may be given once, got the same one as {medical}; "
        f"to strengthen it, give it a weight ({copy})"
    )
    other = tmp_path / "foreign"
    write_adapter(other, Adapter(random_adapter(3).modules, BackboneIdentity("else", "e" * 64)))
    assert refused(AdapterError, [medical, other], out) == (
        f"adapters to merge must be made for one backbone, got tiny {'f' * 12} in {medical} and "
        f"else {'e' * 12} in {other}; their digests differ: train one of them again on the other's backbone"
    )
    assert "got nothing there" in refused(AdapterError, [medical, tmp_path / "nowhere"], out)
    assert not out.exists()


def test_a_folder_of_something_else_is_not_touched(plant: Planter, tmp_path: Path) -> None:
    medical, legal = plant("medical", 1), plant("legal", 2)
    before = contents(medical)
    assert refused(OutputError, [medical, legal], medical) == (
        "an output folder must be new, empty or this recipe's own, got files of something else; "
        f"choose another with --output ({medical})"
    )
    assert contents(medical) == before
    out = tmp_path / "out"
    merge([medical, legal], out)
    merged = contents(out)
    assert "an output folder serves one recipe, got a folder of stage merge" in refused(
        OutputError, [medical, legal], out, weights=(1, 0.9)
    )
    assert contents(out) == merged


def test_a_sum_too_large_to_serve_is_refused_before_the_folder_is_taken(tmp_path: Path) -> None:
    paths = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        module = LoraModule(
            torch.randn(300, 700, generator=generator), torch.randn(700, 300, generator=generator)
        )
        paths.append(tmp_path / str(seed))
        write_adapter(paths[-1], Adapter({"x": module}, IDENTITY))
    sentence = refused(AdapterError, paths, tmp_path / "out")
    assert sentence.startswith("an adapter's rank must be at most 512, got 600; give the merge a")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_that_reads_as_an_adapter(
    plant: Planter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [plant("medical", 1), plant("legal", 2)]
    out = tmp_path / "out"
    synced, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert "got No space left on device; free space" in refused(OutputError, paths, out)
    assert sorted(contents(out)) == ["palette.log", "run.json"]
    monkeypatch.undo()
    merge(paths, out)
    assert read_adapter(out).rank == 8


@pytest.mark.parametrize("method", [row.name for row in TABLE if not row.takes_moments])
def test_every_method_of_the_table_may_be_set(plant: Planter, tmp_path: Path, method: str) -> None:
    paths = [plant("medical", 1), plant("legal", 2)]
    result = merge(paths, tmp_path / "out", method=method, rank=4)
    assert result.method == read_adapter(tmp_path / "out").card["method"] == method


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([("a/medical", ["medical"]), ("b/x.safetensors", ["legal"])], "legal+medical"),
        ([("a/one.safetensors", []), ("b/two", [])], "one+two"),
        ([("runs/law/adapter_model.safetensors", []), ("x/medical", ["medical"])], "law+medical"),
        ([("a", ["b", "a"]), ("c", ["c"])], "a+b+c"),
        ([("a/medical", ["medical"])], "merged-medical"),
        ([("a", ["../../etc"]), ("b", ["\x1b[2J"])], "_.._etc+__2J"),
        ([("a", ["..."]), ("b", ["b"])], "adapter+b"),
        ([("a", ["x" * 400]), ("b", ["b"])], "b+" + "x" * 118),
    ],
)
def test_the_default_folder_is_named_after_the_domains(
    inputs: list[tuple[str, list[str]]], expected: str
) -> None:
    members = [MergeInput(Adapter({}, card={"domains": domains}), label=path) for path, domains in inputs]
    assert default_output(members) == Path("runs") / expected
    assert default_output(members[::-1]) == Path("runs") / expected


def test_without_an_output_the_default_folder_is_used(
    plant: Planter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = merge([plant("medical", 1), plant("legal", 2)])
    assert result.output == "runs/legal+medical"
    assert read_adapter(tmp_path / "runs" / "legal+medical").domains == ("legal", "medical")
