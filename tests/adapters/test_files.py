"""Adapter files: PEFT's are read, ours load in PEFT, and nothing is dropped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save, save_file
from transformers import LlamaForCausalLM

from palette.adapters.configuration import Configuration, parse
from palette.adapters.files import open_adapter, read_adapter
from palette.adapters.header import read_header
from palette.adapters.layouts import layered
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.stored_modules import StoredModules, joined_factors
from palette.adapters.writing import (
    ADAPTER_FORMAT,
    CONFIG,
    WEIGHTS,
    AdapterWriter,
    write_adapter,
)
from palette.errors import AdapterError, OutputError
from palette.files import read_tensors, write_tensors

Maker = Callable[..., LoraModule]
Folder = Callable[..., Path]
IDENTITY = BackboneIdentity("tiny", "f" * 64)


def fit(random_module: Maker, rank: int = 3, layers: tuple[int, ...] = (1,)) -> Adapter:
    """An adapter that fits the tiny backbone."""
    modules = {}
    for layer in layers:
        modules[f"model.layers.{layer}.mlp.down_proj"] = random_module(layer, rank, 48, 32, 0.1)
        modules[f"model.layers.{layer}.self_attn.q_proj"] = random_module(layer, 2, 32, 32, 0.1)
    return Adapter(modules, IDENTITY, {"domains": ["medical"]})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


PEFT_OPTIONS = [
    {},
    {"use_rslora": True},
    {"lora_alpha": 3, "target_modules": r".*\.(gate|up)_proj"},
    {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"layers.2.mlp.down_proj": 2}},
    {"layers_to_transform": [1, 2], "target_modules": ["up_proj", "k_proj", "v_proj"]},
    {"target_modules": "all-linear"},
]


@pytest.mark.parametrize("options", PEFT_OPTIONS)
def test_what_peft_wrote_is_read_as_peft_computes_it(
    peft_folder: Folder, backbone: Callable[[], LlamaForCausalLM], options: dict[str, object]
) -> None:
    folder = peft_folder(**options)
    adapter = read_adapter(folder)
    model = PeftModel.from_pretrained(backbone(), folder)
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert set(adapter.modules) == set(layers)
    for name, layer in layers.items():
        theirs = layer.get_delta_weight("default").detach()
        ours = adapter.modules[name].delta().float()
        assert torch.allclose(ours, theirs, atol=1e-6), name
    assert adapter.backbone == BackboneIdentity("tiny")
    assert adapter.card == {}
    assert read_adapter(folder / WEIGHTS).digest == adapter.digest


@pytest.mark.parametrize("layers", [(1,), (0, 1, 2, 3)])
def test_what_is_written_loads_in_peft_without_a_warning_and_with_the_same_logits(
    random_module: Maker,
    backbone: Callable[[], LlamaForCausalLM],
    tokens: torch.Tensor,
    tmp_path: Path,
    layers: tuple[int, ...],
) -> None:
    adapter = fit(random_module, layers=layers)
    write_adapter(tmp_path, adapter)
    model = backbone()
    for name, module in adapter.modules.items():
        model.get_submodule(name).weight.data += module.delta().float()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        config = LoraConfig.from_pretrained(str(tmp_path))
        loaded = PeftModel.from_pretrained(backbone(), tmp_path)
        difference = (loaded(tokens).logits - model(tokens).logits).abs().max()
    assert [str(one.message) for one in caught if "checkpointing" not in str(one.message)] == []
    assert difference <= 1e-5
    assert (config.r, config.lora_alpha, config.use_rslora) == (8, 8, False)
    assert targeted(loaded) == set(adapter.modules)


@pytest.mark.parametrize(
    "names",
    [
        ["model.layers.1.mlp.down_proj"],
        [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (1, 2) for kind in "qkvo"],
        [f"model.layers.{layer}.mlp.{kind}_proj" for layer in range(4) for kind in ("up", "gate")],
        [
            f"model.layers.{layer}.{kind}_proj"
            for layer in (0, 2, 3)
            for kind in ("self_attn.q", "self_attn.o", "mlp.up", "mlp.gate", "mlp.down")
        ]
        + [f"model.layers.1.self_attn.{kind}_proj" for kind in "kvqo"]
        + ["model.layers.1.mlp.up_proj", "model.layers.1.mlp.gate_proj"],
    ],
)
def test_peft_targets_exactly_the_modules_of_the_adapter(
    random_module: Maker,
    backbone: Callable[[], LlamaForCausalLM],
    tmp_path: Path,
    names: list[str],
) -> None:
    model = backbone()
    modules = {}
    for name in names:
        d_out, d_in = model.get_submodule(name).weight.shape
        modules[name] = random_module(0, 2, d_in, d_out)
    write_adapter(tmp_path, Adapter(modules, IDENTITY))
    assert targeted(PeftModel.from_pretrained(model, tmp_path)) == set(names)


def targeted(model: PeftModel) -> set[str]:
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rank=st.integers(1, 40),
    scale=st.floats(1e-4, 1e4),
    shift=st.integers(-30, 30),
)
def test_writing_and_reading_keeps_delta_and_then_every_byte(
    random_module: Maker,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rank: int,
    scale: float,
    shift: int,
) -> None:
    module = random_module(seed, rank, scale=scale)
    skewed = LoraModule(module.lora_A * 2.0**shift, module.lora_B, module.scale)
    adapter = Adapter({"a.b": skewed, "a.c": module}, IDENTITY, {"domains": ["medical"]})
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    written = write_adapter(first, adapter)
    back = read_adapter(first)
    write_adapter(second, back)
    for name in adapter.modules:
        delta = adapter.modules[name].delta()
        assert (back.modules[name].delta() - delta).norm() <= 1e-7 * delta.norm()
        assert (back.modules[name].rank, back.modules[name].scale) == (written, 1.0)
    assert files(first) == files(second)
    assert back.digest == adapter.digest
    assert (back.backbone, back.card) == (adapter.backbone, adapter.card)


def test_a_written_folder_says_what_it_is(random_module: Maker, tmp_path: Path) -> None:
    adapter = fit(random_module)
    assert write_adapter(tmp_path, adapter) == 8
    assert sorted(files(tmp_path)) == [CONFIG, WEIGHTS]
    tensors, card = read_tensors(tmp_path / WEIGHTS)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert card == {
        "domains": ["medical"],
        "format": ADAPTER_FORMAT,
        "backbone": {"name": "tiny", "fingerprint": "f" * 64},
        "config": config,
    }
    assert config["target_modules"] == sorted(adapter.modules)
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (8, 8, True)
    assert {tuple(one.shape) for key, one in tensors.items() if "lora_A" in key} == {
        (8, 32),
        (8, 48),
    }
    assert {one.dtype for one in tensors.values()} == {torch.float32}


def test_weights_alone_are_read_if_they_carry_their_configuration(
    random_module: Maker, tmp_path: Path
) -> None:
    adapter = fit(random_module)
    write_adapter(tmp_path / "whole", adapter)
    alone = tmp_path / "medical.safetensors"
    shutil.copy(tmp_path / "whole" / WEIGHTS, alone)
    assert read_adapter(alone).digest == adapter.digest


def test_the_order_of_modules_changes_no_byte(random_module: Maker, tmp_path: Path) -> None:
    adapter = fit(random_module, layers=(0, 1))
    turned = Adapter(dict(reversed(adapter.modules.items())), adapter.backbone, adapter.card)
    write_adapter(tmp_path / "one", adapter)
    write_adapter(tmp_path / "two", turned)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_null_adapter_is_written_at_rank_1(tmp_path: Path) -> None:
    null = LoraModule(torch.zeros(0, 5), torch.zeros(4, 0))
    assert write_adapter(tmp_path, Adapter({"a": null})) == 1
    assert not read_adapter(tmp_path).modules["a"].delta().any()


def test_half_precision_is_read_without_loss(tmp_path: Path) -> None:
    factors = {"lora_A": torch.randn(2, 5).bfloat16(), "lora_B": torch.randn(4, 2).half()}
    plant(tmp_path, {f"base_model.model.a.{key}.weight": one for key, one in factors.items()})
    module = read_adapter(tmp_path).modules["a"]
    assert torch.equal(module.lora_A, factors["lora_A"].float())
    assert torch.equal(module.lora_B, factors["lora_B"].float())


def plant(folder: Path, tensors: dict[str, torch.Tensor], card: object = None) -> None:
    """Writes tensors as they are, with the configuration of a plain LoRA of rank 2."""
    write_tensors(folder / WEIGHTS, tensors, {} if card is None else card)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "tiny"}
    (folder / CONFIG).write_text(json.dumps(config))


def test_what_could_not_be_read_back_is_not_written(random_module: Maker, tmp_path: Path) -> None:
    module = random_module(0)
    broken = LoraModule(module.lora_A * float("nan"), module.lora_B)
    huge = LoraModule(module.lora_A, module.lora_B, 1e300)
    for adapter, message in [
        (Adapter({}), f"an adapter must adapt a module, got none ({tmp_path})"),
        (Adapter({"a b": module}), "a module must be named by its path in the backbone, got 'a b'"),
        (Adapter({"a": broken}), "must be finite in float32, got NaN or infinity for a; check the"),
        (Adapter({"a": huge}), "must be finite in float32, got NaN or infinity for a; check the"),
    ]:
        with pytest.raises(AdapterError) as caught:
            write_adapter(tmp_path, adapter)
        assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_nothing_half_written(
    random_module: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    before: bool,
) -> None:
    old, new = fit(random_module, layers=(0,)), fit(random_module, layers=(2,))
    if before:
        write_adapter(tmp_path, old)
    synced, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError) as caught:
        write_adapter(tmp_path, new)
    assert "an output file must be writable, got No space left on device" in str(caught.value)
    assert len(calls) == fails_at
    assert not list(tmp_path.glob(".*"))
    if before and fails_at == 1:
        assert read_adapter(tmp_path).digest == old.digest
    else:
        with pytest.raises(AdapterError):
            read_adapter(tmp_path)
    write_adapter(tmp_path, new)
    assert read_adapter(tmp_path).digest == new.digest


def test_a_full_disk_while_writing_leaves_nothing(
    random_module: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: AdapterWriter, stream: IO[bytes], rank: int, card: object) -> None:
        stream.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AdapterWriter, "_write", full)
    with pytest.raises(OutputError, match="nothing was half-written"):
        write_adapter(tmp_path, fit(random_module))
    assert not list(tmp_path.iterdir())


def refusal(path: Path) -> str:
    """The one sentence with which reading ``path`` is refused."""
    with pytest.raises(AdapterError) as caught:
        read_adapter(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


def test_missing_files_and_pickles_are_refused(tmp_path: Path, random_module: Maker) -> None:
    nothing = "an adapter must be a folder or a .safetensors file, got nothing there"
    assert nothing in refusal(tmp_path / "nowhere")
    assert "got nothing there" in refusal(tmp_path / "nowhere.safetensors")
    (tmp_path / "notes.txt").write_text("hello")
    assert "got another file" in refusal(tmp_path / "notes.txt")
    assert f"must hold {WEIGHTS} and {CONFIG}, got no {WEIGHTS}" in refusal(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    assert "must be stored as safetensors, got a pickle, which can run code" in refusal(tmp_path)
    assert "got a pickle" in refusal(tmp_path / "adapter.pt")
    write_adapter(tmp_path, fit(random_module))
    assert read_adapter(tmp_path).rank == 8
    (tmp_path / CONFIG).unlink()
    assert f"got no {CONFIG}" in refusal(tmp_path)


def test_adapters_in_sub_folders_are_named(tmp_path: Path, random_module: Maker) -> None:
    write_adapter(tmp_path / "medical", fit(random_module))
    remedy = f"got no {WEIGHTS}; give the folder of one of its adapters: {tmp_path / 'medical'}"
    assert refusal(tmp_path).endswith(f"{remedy} ({tmp_path})")
    write_adapter(tmp_path / "checkpoint-5" / "legal", fit(random_module))
    for beside in ("empty", "deeper/and/deeper"):
        (tmp_path / beside).mkdir(parents=True)
    named = refusal(tmp_path).partition("adapters: ")[2].rpartition(" (")[0].split(", ")
    assert named == [str(tmp_path / "checkpoint-5" / "legal"), str(tmp_path / "medical")]
    # The remedy helps.
    assert all(read_adapter(Path(folder)).rank == 8 for folder in named)
    (tmp_path / "medical" / WEIGHTS).unlink()
    assert "medical" not in refusal(tmp_path)


def test_weights_without_a_configuration_are_refused(peft_folder: Folder) -> None:
    folder = peft_folder()
    (folder / CONFIG).unlink()
    expected = f"an adapter must have its {CONFIG}, got weights alone; put the one it was saved"
    assert expected in refusal(folder / WEIGHTS)


@pytest.mark.parametrize("text", ["{", "\udcff", "[" * 100_000])
def test_a_damaged_configuration_is_refused(random_module: Maker, tmp_path: Path, text: str) -> None:
    write_adapter(tmp_path, fit(random_module))
    (tmp_path / CONFIG).write_bytes(text.encode(errors="surrogateescape"))
    assert f"{CONFIG} must be valid JSON, got " in refusal(tmp_path)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "use_rslora", "target_modules"])
def test_a_configuration_that_contradicts_the_card_is_refused(
    random_module: Maker, tmp_path: Path, key: str
) -> None:
    write_adapter(tmp_path, fit(random_module))
    config = json.loads((tmp_path / CONFIG).read_text())
    config[key] = {"r": 16, "lora_alpha": 64, "use_rslora": True, "target_modules": ["x"]}[key]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    expected = f"{CONFIG} and the card in the weights must agree, got another {key}; copy it again"
    assert expected in refusal(tmp_path)


def test_the_base_name_in_the_configuration_may_be_edited(random_module: Maker, tmp_path: Path) -> None:
    write_adapter(tmp_path, fit(random_module))
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "moved"}))
    assert read_adapter(tmp_path).backbone == IDENTITY


@pytest.mark.parametrize("backbone", ["tiny", {"name": 3}, {"fingerprint": []}, None])
def test_a_card_that_names_no_backbone_properly_is_refused(tmp_path: Path, backbone: object) -> None:
    tensors = {
        "base_model.model.a.lora_A.weight": torch.ones(2, 5),
        "base_model.model.a.lora_B.weight": torch.ones(4, 2),
    }
    plant(tmp_path, tensors, {"backbone": backbone})
    expected = f"a card's backbone must have a name and a fingerprint, got {backbone!a}; train"
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason", "in_tensors"),
    [
        ({"lora_bias": True}, "a bias on lora_B", True),
        ({"modules_to_save": ["lm_head"]}, "a whole module trained beside LoRA", True),
        ({"target_modules": ["embed_tokens"]}, "LoRA on embeddings", True),
        ({"trainable_token_indices": [1, 2]}, "trained token embeddings", True),
        ({"bias": "lora_only"}, "biases of the backbone", False),
    ],
)
@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
def test_what_delta_cannot_hold_is_refused_never_dropped(
    peft_folder: Folder, options: dict[str, object], reason: str, in_tensors: bool
) -> None:
    folder = peft_folder(**options)
    assert reason in refusal(folder)
    config = json.loads((folder / CONFIG).read_text())
    plain = {key: config[key] for key in ("peft_type", "r", "lora_alpha", "target_modules")}
    (folder / CONFIG).write_text(json.dumps(plain))
    if in_tensors:
        assert "lora_A.weight and lora_B.weight only, got " in refusal(folder)


# Stored modules: shapes are checked at once, numbers when read, and memory holds one module.


A = "base_model.model.x.lora_A.weight"
B = "base_model.model.x.lora_B.weight"
WHERE = Path("adapter_model.safetensors")
CONFIGURATION = parse({"peft_type": "LORA", "r": 2, "lora_alpha": 4}, WHERE)
LAW = "the factors of a module must be finite float matrices [rank d_in] and [d_out rank], got "


def stored(
    folder: Path, tensors: dict[str, torch.Tensor], configuration: Configuration = CONFIGURATION
) -> StoredModules:
    path = folder / WHERE
    save_file(tensors, path)
    header = read_header(path)
    return StoredModules(header, layered(header.entries, path)[1], {}, configuration)


@pytest.mark.parametrize(
    ("down", "up", "got"),
    [
        (torch.ones(2, 5), torch.ones(4, 3), "lora_A [2, 5] and lora_B [4, 3]"),
        (torch.ones(2), torch.ones(4, 2), "lora_A [2] and lora_B [4, 2]"),
        (torch.ones(2, 5, 1), torch.ones(4, 2), "lora_A [2, 5, 1] and lora_B [4, 2]"),
        (torch.ones(0, 5), torch.ones(4, 0), "lora_A [0, 5] and lora_B [4, 0]"),
        (torch.ones(2, 0), torch.ones(4, 2), "lora_A [2, 0] and lora_B [4, 2]"),
        (torch.ones(3, 5), torch.ones(4, 3), "rank 3 where the configuration says 2"),
        (torch.ones(2, 5).int(), torch.ones(4, 2), "I32 and F32"),
    ],
)
def test_factors_that_do_not_fit_are_refused_before_they_are_read(
    tmp_path: Path, down: torch.Tensor, up: torch.Tensor, got: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        stored(tmp_path, {A: down, B: up})
    assert str(caught.value) == f"{LAW}{got} for x; train or export it again ({tmp_path / WHERE})"


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (torch.full((2, 5), torch.nan), torch.ones(4, 2)),
        (torch.ones(2, 5), torch.full((4, 2), -torch.inf)),
        (torch.full((2, 5), 1e300, dtype=torch.float64), torch.ones(4, 2)),
    ],
)
def test_numbers_are_checked_when_they_are_read(tmp_path: Path, down: torch.Tensor, up: torch.Tensor) -> None:
    modules = stored(tmp_path, {A: down, B: up})
    assert list(modules) == ["x"]
    with pytest.raises(AdapterError) as caught:
        modules["x"]
    assert str(caught.value) == (f"{LAW}NaN or infinity for x; train or export it again ({tmp_path / WHERE})")


def test_a_mapping_of_modules_says_sizes_without_reading(tmp_path: Path) -> None:
    modules = stored(tmp_path, {A: torch.ones(2, 5), B: torch.ones(4, 2)})
    assert (len(modules), "x" in modules, "y" in modules) == (1, True, False)
    assert [modules.entries_of("x")[role].shape for role in ("lora_A", "lora_B")] == [(2, 5), (4, 2)]
    (tmp_path / WHERE).unlink()
    assert [modules.entries_of("x")[role].shape for role in ("lora_A", "lora_B")] == [(2, 5), (4, 2)]
    with pytest.raises(KeyError):
        modules["y"]
    with pytest.raises(AdapterError, match="an adapter must be a whole safetensors file, got No such"):
        modules["x"]


@pytest.mark.parametrize("change", ["touched", "longer", "shorter", "replaced"])
def test_a_file_that_changed_is_refused(tmp_path: Path, change: str) -> None:
    tensors = {A: torch.ones(2, 5), B: torch.ones(4, 2)}
    modules = stored(tmp_path, tensors)
    path = tmp_path / WHERE
    assert modules["x"].scale == 2.0
    if change == "touched":
        os.utime(path, ns=(0, 0))
    elif change == "replaced":
        status = path.stat()
        (tmp_path / "other").write_bytes(save({A: 2 * tensors[A], B: tensors[B]}))
        os.replace(tmp_path / "other", path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        path.write_bytes(path.read_bytes() + b"x" if change == "longer" else path.read_bytes()[:-20])
    with pytest.raises(AdapterError) as caught:
        modules["x"]
    assert "got another file than when it was opened; copy" in str(caught.value)


def test_alpha_tensors_decide_where_nothing_else_does_and_must_agree_where_it_does() -> None:
    factors = {"lora_A": torch.ones(2, 5), "lora_B": torch.ones(4, 2), "alpha": torch.tensor(8)}
    assert joined_factors("x", factors, Configuration(), WHERE).scale == 4.0
    assert joined_factors("x", {**factors, "alpha": torch.tensor(4.004)}, CONFIGURATION, WHERE).scale == 2.0
    with pytest.raises(AdapterError, match="got alpha 8 where the configuration says 4 for x; train"):
        joined_factors("x", factors, CONFIGURATION, WHERE)
    with pytest.raises(AdapterError, match="got NaN or infinity for x"):
        joined_factors("x", {**factors, "alpha": torch.tensor(torch.nan)}, Configuration(), WHERE)


def test_opened_and_read_adapters_are_one(random_module: Callable[..., LoraModule], tmp_path: Path) -> None:
    adapter = Adapter({name: random_module(seed) for seed, name in enumerate("cab")}, card={"domains": ["a"]})
    write_adapter(tmp_path, adapter)
    opened, read = open_adapter(tmp_path), read_adapter(tmp_path)
    assert isinstance(read.modules, dict)
    assert list(opened.modules) == list(read.modules) == ["a", "b", "c"]
    assert opened.digest == read.digest == adapter.digest
    assert (opened.card, opened.backbone, opened.rank) == (read.card, read.backbone, read.rank)
    assert opened.modules["a"] is not opened.modules["a"], "nothing is kept"


PEAKS = """
import sys
from pathlib import Path
import torch
from palette.adapters.files import open_adapter
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
torch.set_num_threads(1)
first, second = map(open_adapter, map(Path, sys.argv[1:]))
first.modules["a"].canonical()
peaks = [peak()]
for adapter in (first, second):
    adapter.digest
    peaks.append(peak())
print(*peaks)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are Linux's")
def test_the_digest_holds_one_module(tmp_path: Path) -> None:
    """The digest of three modules takes a few copies of one; that of twenty takes hardly more."""
    for folder, names in (("first", "bcd"), ("second", "bcdefghijklmnopqrstu")):
        tensors = {A.replace("x", "a"): torch.ones(16, 2), B.replace("x", "a"): torch.ones(4, 16)}
        for name in names:
            tensors[A.replace("x", name)] = torch.ones(16, 2**16)
            tensors[B.replace("x", name)] = torch.ones(4, 16)
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / WHERE)
        config = '{"peft_type": "LORA", "r": 16, "lora_alpha": 16}'
        (tmp_path / folder / "adapter_config.json").write_text(config)
    command = [sys.executable, "-c", PEAKS, str(tmp_path / "first"), str(tmp_path / "second")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, three, twenty = map(float, done.stdout.split())
    module = 16 * 2**16 * 4 / 2**20
    assert three - before > module, "what is measured is there"
    assert twenty - three < 6 * module, "seventeen would be held otherwise, beside what is torch's own"
