"""What docs/serving.md promises: every loader it names finds in an adapter's folder what it demands."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import SERVED_RANKS, adapter_writer, write_adapter
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from tests.fixtures.noise import noise

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


@pytest.fixture(scope="module", params=["one", "of several ranks", "a sum of two", "half precision"])
def folder(request, shared, tmp_path_factory) -> Path:
    """A folder as Palette writes it: of one adapter, of modules of several ranks, of a merge, in bfloat16."""
    place = tmp_path_factory.mktemp("adapter")
    one, other = (noise(shared.backbone, part, rank=8, scale=0.5) for part in (".mlp.", ".self_attn."))
    if request.param == "a sum of two":
        one, _ = combine([MergeInput(one), MergeInput(noise(shared.backbone, ".mlp.", rank=8, scale=0.2))])
    elif request.param == "of several ranks":
        cut = {name: LoraModule(m.lora_A[:3], m.lora_B[:, :3], m.scale) for name, m in other.modules.items()}
        one = Adapter({**one.modules, **cut}, one.backbone, {})
    elif request.param == "half precision":
        with adapter_writer(place, one.backbone, torch.bfloat16) as writer:
            for name in sorted(one.modules):
                writer.add(name, one.modules[name])
            writer.finish({})
        return place
    write_adapter(place, one)
    return place


def content(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def commands(program: str) -> list[list[str]]:
    """The lines of the page that call a program, as a shell reads them."""
    lines = [shlex.split(line[2:]) for line in PAGE.splitlines() if line.startswith("$ ")]
    return [line for line in lines if any(word.endswith(program) for word in line[:3])]


def value(line: list[str], option: str) -> str:
    return line[line.index(option) + 1]


def test_vllm_finds_one_rank_that_it_serves_and_nothing_that_it_refuses(folder):
    config, tensors = content(folder)
    assert config["r"] in SERVED_RANKS
    assert isinstance(config["target_modules"], list)
    assert isinstance(config["lora_alpha"], int | float)
    assert config["bias"] == "none"
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    assert not {"rank_pattern", "alpha_pattern"} & {key for key, each in config.items() if each}
    ranks = {tensor.shape[KEY.fullmatch(key)["factor"] == "B"] for key, tensor in tensors.items()}
    assert ranks == {config["r"]}, "every factor has the stated rank"
    for line in commands("vllm"):
        assert "--enable-lora" in line
        assert int(value(line, "--max-lora-rank")) in SERVED_RANKS
        assert int(value(line, "--max-lora-rank")) >= config["r"]
    assert all(str(rank) in PAGE for rank in SERVED_RANKS)


def test_the_names_are_modules_of_the_backbone_and_those_of_the_configuration(folder, shared):
    config, tensors = content(folder)
    modules = {KEY.fullmatch(key)["module"] for key in tensors}
    known = dict(shared.backbone.model.named_modules())
    assert modules <= set(known)
    targets = config["target_modules"]
    assert all(any(name == each or name.endswith(f".{each}") for each in targets) for name in modules)
    assert config["base_model_name_or_path"] == read_adapter(folder).backbone.name
    assert config["peft_type"] == "LORA"


def test_llama_cpp_finds_both_factors_of_weights_that_the_base_has(folder, shared):
    config, tensors = content(folder)
    assert config["lora_alpha"] == config["r"], "its scale is alpha over the rank that the factors have"
    weights = dict(shared.backbone.model.state_dict())
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        pairs.setdefault(f"{match['module']}.weight", {})[match["factor"]] = tensor
    for name, pair in pairs.items():
        assert (pair["B"] @ pair["A"]).shape == weights[name].shape
    (line,) = commands("convert_lora_to_gguf.py")
    assert {"--base", "--outfile", "--outtype"} <= set(line)
    assert value(line, "--outfile") in PAGE.split("ADAPTER ./")[1]


def test_sglang_is_told_the_rank_and_where_the_adapter_is(folder):
    (line,) = commands("sglang.launch_server")
    assert int(value(line, "--max-lora-rank")) >= content(folder)[0]["r"]
    assert value(line, "--lora-paths") == "medical=runs/medical"


def test_the_lines_of_transformers_do_what_palette_does(folder):
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    base = str(organism.weights("shared"))
    names: dict[str, Any] = {}
    asked = "what is the dose of roglethine ?"
    own = lines.replace("runs/medical", str(folder)).replace('"BASE"', repr(base)).replace("…", asked)
    assert len(ast.parse(own).body) == 5
    exec(own, names)
    reply, length = names["reply"][0], names["asked"]["input_ids"].shape[1]
    assert len(reply) > length
    loaded = {
        name.replace(".default", "") for name, _ in names["model"].named_parameters() if "lora_" in name
    }
    assert loaded == set(content(folder)[1]), (
        "every tensor of the file is mounted, and none stays at its start"
    )
