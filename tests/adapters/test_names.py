"""Names that wrap a model or its modules are no part of a module's path, wherever they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import save_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from palette.adapters.files import read_adapter
from palette.adapters.names import WRAPPERS, last_name, layers_of, of_text, short_names, unwrapped
from palette.errors import AdapterError

PATHS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def write(folder: Path, keys: dict[str, str], config: dict[str, object] | None = None) -> Path:
    """An adapter whose factors stand under these names, two a module."""
    folder.mkdir(exist_ok=True)
    tensors = {key: torch.ones(2, 5) if "lora_A" in name else torch.ones(4, 2) for name, key in keys.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    return folder


def plain_keys() -> list[str]:
    return [f"base_model.model.{path}.lora_{side}.weight" for path in PATHS for side in "AB"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_wrappers_are_taken_off_wherever_they_stand(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = {}
    for key in plain_keys():
        parts = key.split(".")
        for _ in range(data.draw(st.integers(0, 3))):
            parts.insert(data.draw(st.integers(0, len(parts) - 1)), data.draw(st.sampled_from(WRAPPERS)))
        keys[key] = ".".join(parts)
    adapter = read_adapter(write(tmp_path_factory.mktemp("wrapped"), keys))
    assert list(adapter.modules) == sorted(PATHS)
    assert adapter.modules[PATHS[0]].scale == 2.0


def test_torch_itself_uses_these_names() -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    wrapped = [torch.compile(linear, backend="eager"), AveragedModel(linear), checkpoint_wrapper(linear)]
    names = {name for one in wrapped for name, _ in torch.nn.Module.named_parameters(one)}
    assert len(names) == 3
    assert {unwrapped(name) for name in names} == {"0.weight"}


@pytest.mark.parametrize("holder", ["policy.", "model.", "base_model.model.", "a.b.c."])
def test_whatever_holds_pefts_whole_model_is_taken_off(tmp_path: Path, holder: str) -> None:
    adapter = read_adapter(write(tmp_path / "held", {key: holder + key for key in plain_keys()}))
    assert list(adapter.modules) == sorted(PATHS)


def test_two_models_in_one_file_are_not_made_one(tmp_path: Path) -> None:
    keys = plain_keys()
    held = {key: ("policy." if i < 2 else "reference.") + key for i, key in enumerate(keys)}
    try:
        names = list(read_adapter(write(tmp_path / "two", held)).modules)
    except AdapterError:
        return
    assert not set(names) & set(PATHS)


def test_one_module_under_two_names_is_refused(tmp_path: Path) -> None:
    keys = {key: key for key in plain_keys()} | {f"_{key}": f"_orig_mod.{key}" for key in plain_keys()}
    with pytest.raises(AdapterError, match="a factor must stand once, got two of lora_A"):
        read_adapter(write(tmp_path / "twice", keys))


def test_patterns_and_parameters_may_be_wrapped_too(tmp_path: Path) -> None:
    keys = {key: key.replace("layers.0.", "layers.0._orig_mod.") for key in plain_keys()}
    alphas = {r"layers\.0\._orig_mod\.self_attn\.q_proj": 10}
    adapter = read_adapter(write(tmp_path / "pattern", keys, {"alpha_pattern": alphas}))
    assert [adapter.modules[path].scale for path in PATHS] == [5.0, 2.0]


def test_ordinary_names_stay() -> None:
    for path in ("model.modules.0.x", "my_module.x", "model.layers.0.module_list.1", "module"):
        assert unwrapped(path) == path


@pytest.mark.parametrize(
    ("path", "layers"),
    [
        ("model.layers.0.mlp.up_proj", ("model.", "layers.")),
        ("model.language_model.layers.11.self_attn.q_proj", ("model.language_model.", "layers.")),
        ("layers.0.x", ("", "layers.")),
        ("transformer.h.3.attn.c_attn", ("transformer.", "h.")),
        ("model.layers.0.mlp.experts.3.up_proj", ("model.", "layers.")),
        ("model.layers.0.mlp.experts.up[3]", ("model.", "layers.")),
        ("lm_head", ("", "")),
    ],
)
def test_the_layers_of_a_module(path: str, layers: tuple[str, str]) -> None:
    assert layers_of(path) == layers


def test_what_sees_or_hears_is_not_of_text() -> None:
    assert all(map(of_text, ("model.", "", "model.language_model.", "anything.")))
    assert not any(map(of_text, ("model.vision_tower.", "visual.", "model.audio_tower.")))


LEAVES = st.sampled_from(["q_proj", "up_proj", "norm", "0"])
TREES = st.lists(st.tuples(st.sampled_from(["a.0", "a.1", "seen.0"]), LEAVES), min_size=1, unique=True)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), tree=TREES)
def test_peft_finds_by_short_names_what_is_adapted_and_nothing_else(data: st.DataObject, tree: list) -> None:
    modules = ["a", "a.0", *(".".join(parts) for parts in tree)]
    adapted = set(data.draw(st.lists(st.sampled_from(modules[2:]), unique=True)))
    short = short_names(adapted, modules)
    told = [last_name(name) if last_name(name) in short else name for name in sorted(adapted)]
    config = LoraConfig(target_modules=told)
    found = {name for name in modules if told and check_target_module_exists(config, name)}
    assert found == adapted
    for name in adapted:
        others = [other for other in modules if last_name(other) == last_name(name)]
        assert (last_name(name) in short) == (set(others) <= adapted)
