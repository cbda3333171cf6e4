"""Adapters written module by module: the same bytes as at once, in less memory, in any precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from palette.adapters.configuration import parse
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import CONFIG, SERVED_RANKS, WEIGHTS, adapter_writer, served_rank, write_adapter
from palette.errors import AdapterError

Maker = Callable[..., LoraModule]


@pytest.fixture
def adapter(random_module: Maker) -> Adapter:
    # Names of which one begins another sort otherwise with what follows them in the file.
    return Adapter({"a": random_module(1), "a.b": random_module(2, 2), "b": random_module(3, 5)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_written_is_what_the_writer_says(
    adapter: Adapter, tmp_path: Path, dtype: torch.dtype
) -> None:
    with adapter_writer(tmp_path, BackboneIdentity("tiny"), dtype) as writer:
        for name in sorted(adapter.modules):
            writer.add(name, adapter.modules[name])
        assert writer.finish({"domains": ["law"]}) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CONFIG, WEIGHTS])
    found = read_adapter(tmp_path)
    assert found.digest == writer.digest
    assert found.domains == ("law",)
    for name, module in adapter.modules.items():
        delta = module.delta()
        assert (
            float((found.modules[name].delta() - delta).norm() / delta.norm()) <= 2 * torch.finfo(dtype).eps
        )
    assert (writer.digest == adapter.digest) == (dtype is torch.float32)


def test_half_the_width_is_half_the_file(random_module: Maker, tmp_path: Path) -> None:
    whole = Adapter({"a": random_module(1, 16, 256, 256)})
    sizes = []
    for dtype in (torch.float32, torch.bfloat16):
        with adapter_writer(tmp_path / str(dtype), BackboneIdentity(), dtype) as writer:
            writer.add("a", whole.modules["a"])
            writer.finish({})
        sizes.append((tmp_path / str(dtype) / WEIGHTS).stat().st_size)
    assert sizes[0] - sizes[1] == 2 * 16 * 512


def test_modules_out_of_order_are_refused(adapter: Adapter, tmp_path: Path) -> None:
    with adapter_writer(tmp_path, BackboneIdentity()) as writer:
        writer.add("b", adapter.modules["b"])
        with pytest.raises(AdapterError, match="in the order of their names, got a"):
            writer.add("a", adapter.modules["a"])


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    huge = LoraModule(torch.full((1, 2), 1e6), torch.full((2, 1), 1e6))
    sentence = "must be finite in float16, got NaN or infinity for a"
    writers = adapter_writer(tmp_path, BackboneIdentity(), torch.float16)
    with writers as writer, pytest.raises(AdapterError, match=sentence):
        writer.add("a", huge)


def test_a_writer_left_early_leaves_nothing(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), adapter_writer(tmp_path, BackboneIdentity()) as writer:
        writer.add("b", adapter.modules["b"])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_writing_twice_gives_the_same_bytes(adapter: Adapter, tmp_path: Path) -> None:
    write_adapter(tmp_path / "one", adapter)
    write_adapter(tmp_path / "two", read_adapter(tmp_path / "one"))
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == (tmp_path / "two" / WEIGHTS).read_bytes()


def test_the_written_files_keep_to_what_vllm_documents(random_module: Maker, tmp_path: Path) -> None:
    """METHODS: one alpha / r for the whole adapter, a served rank, plain LoRA, factors alone."""
    modules = {
        "model.layers.0.mlp.up_proj": random_module(1, 3, scale=0.3),
        "model.layers.0.self_attn.q_proj": random_module(2, 11, scale=7.0),
    }
    write_adapter(tmp_path, Adapter(modules, BackboneIdentity("tiny")))
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["r"] == config["lora_alpha"] == 16
    assert config["peft_type"] == "LORA"
    assert config["bias"] == "none"
    assert not any(
        config.get(key)
        for key in (
            "use_rslora",
            "use_dora",
            "modules_to_save",
            "rank_pattern",
            "alpha_pattern",
            "fan_in_fan_out",
        )
    )
    assert isinstance(config["target_modules"], list)
    tensors = load_file(tmp_path / WEIGHTS)
    assert set(tensors) == {
        f"base_model.model.{name}.lora_{side}.weight" for name in modules for side in "AB"
    }
    for name in modules:
        assert tensors[f"base_model.model.{name}.lora_A.weight"].shape == (16, 12)
        assert tensors[f"base_model.model.{name}.lora_B.weight"].shape == (10, 16)


@pytest.mark.parametrize(
    ("rank", "served"), [(0, 1), (1, 1), (2, 8), (8, 8), (33, 64), (257, 320), (512, 512)]
)
def test_ranks_are_rounded_up_to_what_vllm_serves(rank: int, served: int) -> None:
    assert served_rank(rank) == served
    assert served in SERVED_RANKS


def test_a_rank_that_is_not_served_is_refused() -> None:
    with pytest.raises(AdapterError) as caught:
        served_rank(513)
    assert str(caught.value) == (
        "an adapter's rank must be at most 512, got 513; "
        "give the merge a smaller --rank, and read the energy it retains"
    )


def targets(folder: Path) -> list[str]:
    stated: list[str] = json.loads((folder / CONFIG).read_text())["target_modules"]
    return stated


def test_last_names_are_written_where_they_are_known_to_be_exact(
    random_module: Maker, tmp_path: Path
) -> None:
    names = [f"layers.{layer}.{leaf}" for layer in range(2) for leaf in ("q_proj", "up_proj")]
    modules = {name: random_module(place) for place, name in enumerate(names)}
    known = Adapter(modules, BackboneIdentity("tiny"), {}, frozenset({"q_proj"}))
    write_adapter(tmp_path / "known", known)
    assert targets(tmp_path / "known") == ["layers.0.up_proj", "layers.1.up_proj", "q_proj"]
    # What is read keeps them, as does what is made of it, unless it lacks one of the modules.
    read = read_adapter(tmp_path / "known")
    write_adapter(tmp_path / "again", read)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "known" / WEIGHTS).read_bytes()
    with adapter_writer(tmp_path / "part", read.backbone, sources=[read]) as writer:
        writer.add(names[0], modules[names[0]])
        writer.finish({})
    assert targets(tmp_path / "part") == [names[0]]
    # Another source that has no such module leaves them; one whose module of that name is lost does not.
    other = Adapter({"seen.q_proj": random_module(9)}, BackboneIdentity("tiny"))
    with adapter_writer(tmp_path / "other", read.backbone, sources=[read, other]) as writer:
        for name in names:
            writer.add(name, modules[name])
        writer.finish({})
    assert targets(tmp_path / "other") == sorted(names)


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"target_modules": ["q_proj", "up_proj"]}, {"q_proj", "up_proj"}),
        ({"target_modules": ["_orig_mod.q_proj"]}, {"q_proj"}),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0]}, set()),
        ({"target_modules": ["q_proj"], "layers_to_transform": 0}, set()),
        ({"target_modules": ["q_proj"], "exclude_modules": ["layers.1.q_proj"]}, set()),
        ({"target_modules": r".*q_proj"}, set()),
        ({"target_modules": "all-linear"}, set()),
        ({"target_modules": ["q_proj", 3]}, set()),
        ({}, set()),
    ],
)
def test_names_are_taken_over_only_where_they_alone_decide(fields: dict, known: set[str]) -> None:
    stated = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **fields}
    assert parse(stated, Path(CONFIG)).targets == known
