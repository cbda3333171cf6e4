"""Where a backbone lies and in how many bits: the same hooks, replies and adapters, or one sentence."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from palette import organism
from palette.activations import captured
from palette.adapters.mounting import mounted
from palette.backbones import Backbone, greedy_replies, load_backbone, next_token_logits, placement
from palette.backbones.loading import load_sketch
from palette.backbones.placement import (
    main_device,
    number_format,
    numbers_in,
    pass_seconds,
    placed,
    weight_bytes,
)
from palette.backbones.skipping import Places, narrowed, positionwise
from palette.errors import BackboneError
from palette.evaluation.subjects import Subject
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.processes import device_named, join_process_group
from palette.stages.inspect import inspect

FOLDER = organism.weights("shared")
ASKED = [[1, 5, 6, 7], [1, 8, 9, 10, 11]]
bits = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra bits")


@pytest.fixture(scope="module")
def plain():
    return load_backbone(FOLDER)


@pytest.fixture
def offloaded(plain, recwarn):
    """The last block lies on the disk, and is fetched when it runs."""
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    blocks = [f"model.layers.{index}" for index in range(plain.layers)]
    return load_backbone(FOLDER, device={**dict.fromkeys([*parts, *blocks], "cpu"), blocks[-1]: "disk"})


def streams(backbone):
    seen = {}
    with torch.no_grad(), captured(backbone.blocks, seen.__setitem__):
        backbone.model(input_ids=torch.tensor(ASKED[:1]))
    return torch.stack([seen[site] for site in sorted(seen)])


def taught(backbone):
    """One step of training: the adapter, and how its loss fell."""
    layers = lora_layers(backbone, range(backbone.layers))
    with trainable(backbone, layers, rank=2, seed=0) as model:
        losses = []
        optimiser = torch.optim.SGD(lora_parameters(model).values(), lr=0.02)
        for _ in range(2):
            logits = backbone.model(input_ids=torch.tensor(ASKED[:1])).logits[0, -1]
            losses.append(-logits.float().log_softmax(-1)[9])
            optimiser.zero_grad()
            losses[-1].backward()
            optimiser.step()
        last = next_token_logits(backbone, ASKED)
        return read_out(model, backbone, layers), last, [loss.item() for loss in losses]


def test_what_is_fetched_from_the_disk_is_the_same_model(plain, offloaded):
    assert plain.blocks[-1].mlp.down_proj.weight.device.type == "cpu"
    assert offloaded.blocks[-1].mlp.down_proj.weight.is_meta
    for backbone in (offloaded, offloaded.twin()):
        assert torch.equal(next_token_logits(backbone, ASKED), next_token_logits(plain, ASKED))
    assert torch.equal(streams(offloaded), streams(plain))
    assert greedy_replies(offloaded, ASKED, 4) == greedy_replies(plain, ASKED, 4)
    # A module that is narrowed for a while gets back the way in which it fetches its weights.
    down = offloaded.blocks[-1].mlp.down_proj
    own = down.__dict__["forward"]
    nowhere = Places(torch.zeros(1, dtype=torch.long), torch.zeros((1, 1), dtype=torch.long))
    with narrowed({down: nowhere}):
        assert down.__dict__["forward"] is not own
    assert down.__dict__["forward"] is own
    assert any(positionwise(offloaded))
    assert torch.equal(next_token_logits(offloaded, ASKED), next_token_logits(plain, ASKED))


def test_what_is_fetched_is_taught_as_what_lies_here(plain, offloaded):
    ours, theirs = taught(offloaded), taught(plain)
    assert ours[2][1] < ours[2][0]
    assert ours[2][0] == pytest.approx(theirs[2][0])
    with mounted(offloaded.model, ours[0]), torch.no_grad():
        assert torch.allclose(next_token_logits(offloaded, ASKED), ours[1], atol=1e-4)
    with mounted(plain.model, ours[0]), torch.no_grad():
        assert torch.allclose(next_token_logits(plain, ASKED), ours[1], atol=1e-4)


@bits
@pytest.mark.parametrize(("dtype", "kind"), [("int8", "Linear8bitLt"), ("nf4", "Linear4bit")])
def test_in_few_bits_hooks_twins_replies_and_training_work_and_nothing_is_dequantised(plain, dtype, kind):
    backbone = load_backbone(FOLDER, dtype=dtype)
    twin = backbone.twin()
    weight = backbone.blocks[0].mlp.down_proj.weight
    assert type(backbone.blocks[0].mlp.down_proj).__name__ == kind
    assert weight.dtype == {"int8": torch.int8, "nf4": torch.uint8}[dtype]
    logits = next_token_logits(backbone, ASKED)
    assert torch.equal(next_token_logits(twin, ASKED), logits)
    exact = next_token_logits(plain, ASKED)
    assert 0 < float((logits - exact).norm() / exact.norm()) < {"int8": 0.05, "nf4": 0.5}[dtype]
    assert streams(backbone).shape == streams(plain).shape
    assert all(greedy_replies(backbone, ASKED, 3))
    adapter, last, losses = taught(backbone)
    assert losses[1] < losses[0]
    with mounted(backbone.model, adapter):
        assert torch.allclose(next_token_logits(backbone, ASKED), last, atol=1e-3)
    assert torch.equal(next_token_logits(backbone, ASKED), logits), "the adapter is off again"
    assert backbone.blocks[0].mlp.down_proj.weight.dtype == weight.dtype
    # What one says is never taken for a reply of the other, though both are the same files.
    assert backbone.fingerprint == plain.fingerprint
    assert len({Subject(each).identity for each in (plain, backbone)}) == 2
    assert number_format(plain.model) == "torch.float32" != number_format(backbone.model)


@bits
def test_a_folder_in_few_bits_is_loaded_as_it_is_and_put_into_no_fewer(plain, tmp_path):
    model = load_backbone(FOLDER, dtype="nf4").model
    folder = shutil.copytree(FOLDER, tmp_path / "few")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    backbone = load_backbone(folder)
    assert type(backbone.blocks[0].mlp.down_proj).__name__ == "Linear4bit"
    assert torch.equal(
        next_token_logits(backbone, ASKED), next_token_logits(load_backbone(FOLDER, dtype="nf4"), ASKED)
    )
    with pytest.raises(BackboneError, match="cannot be put into fewer, got int8; say dtype: auto"):
        load_backbone(folder, dtype="int8")
    assert weight_bytes(load_sketch(folder).model, "auto") == pytest.approx(held(backbone.model), rel=0.02)


def held(model):
    """The bytes of all weights, their scales among them."""
    scales = [getattr(getattr(each, "quant_state", None), "absmax", None) for each in model.parameters()]
    rows = [getattr(module.weight, "SCB", None) for module in model.modules() if hasattr(module, "weight")]
    found = [*model.parameters(), *(each for each in [*scales, *rows] if each is not None)]
    return sum(each.nbytes for each in found)


@bits
@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_before_it_is_loaded_it_is_known_what_a_model_in_few_bits_takes(plain, dtype):
    backbone = load_backbone(FOLDER, dtype=dtype)
    found = weight_bytes(load_sketch(FOLDER, dtype=dtype).model, dtype)
    assert found == pytest.approx(held(backbone.model), rel=0.02)
    assert found < 0.6 * held(plain.model)
    # Packing makes a model no smaller in what it computes.
    assert sum(map(numbers_in, backbone.model.parameters())) == plain.model.num_parameters()
    assert pass_seconds(backbone) == pass_seconds(plain)


@bits
def test_few_bits_say_nothing_at_each_product(caplog, recwarn):
    backbone = load_backbone(FOLDER, dtype="int8")
    next_token_logits(Backbone(backbone.model.bfloat16(), backbone.tokenizer, "halves", ""), ASKED)
    assert not caplog.records and not recwarn.list


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_a_model_that_is_not_in_few_bits_takes_its_weights(dtype):
    model = load_sketch(FOLDER, dtype=dtype).model
    assert weight_bytes(model, dtype) == sum(
        each.nbytes for each in load_backbone(FOLDER, dtype=dtype).model.parameters()
    )


@pytest.mark.parametrize(("dtype", "stored"), [("nf4", None), ("int8", None), ("auto", "bitsandbytes")])
def test_a_missing_package_is_one_sentence_with_what_installs_it(monkeypatch, dtype, stored):
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    told = r"in few bits is run by the package .*; pip install 'palette-llm\[bits\]'"
    with pytest.raises(BackboneError, match=told):
        placed("cpu", dtype, torch.float32, stored and {"quant_method": stored})
    if stored is None:
        with pytest.raises(BackboneError, match=told):
            load_sketch(FOLDER, dtype=dtype)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("awq", "run by the package gptqmodel, got none installed; pip install gptqmodel"),
        ("gptq", "run by the package optimum, got none installed; pip install optimum gptqmodel"),
        (
            "compressed-tensors",
            "run by the package compressed-tensors, got none installed; pip install compressed-tensors",
        ),
    ],
)
def test_weights_in_few_bits_of_another_method_name_the_package_that_runs_them(
    monkeypatch, tmp_path, method, told
):
    folder = shutil.copytree(FOLDER, tmp_path / "few")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": method}})
    )
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    for asked in (lambda: load_backbone(folder), lambda: load_sketch(folder), lambda: inspect(str(folder))):
        with pytest.raises(BackboneError) as caught:
            asked()
        assert str(caught.value) == f"a model in few bits is {told}"


def machine(monkeypatch, kind, count):
    """One with so many accelerators of a kind."""
    found = kind and torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


NONE = ("cuda", "cuda:0", "mps", "xpu", "gpu", "", "cpu:1", "meta")


@pytest.mark.parametrize("name", NONE)
def test_a_missing_device_is_one_sentence_that_says_what_there_is(monkeypatch, name):
    machine(monkeypatch, None, 0)
    told = rf"^device must be auto or one that this machine has, got '{name}'; it has cpu \(device\)$"
    for call in (device_named, join_process_group, main_device, lambda each: main_device({"": each})):
        with pytest.raises(BackboneError, match=told):
            call(name)
    for load in (load_backbone, load_sketch):
        with pytest.raises(BackboneError, match=told):
            load(FOLDER, device=name)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_auto_is_the_accelerator_but_for_one_without_double_precision(monkeypatch, kind):
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: torch.device(kind)
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert device_named("auto") == ("cpu" if kind == "mps" else kind)
    assert [device_named(name) for name in ("cpu", kind, f"{kind}:1")] == ["cpu", kind, f"{kind}:1"]
    with pytest.raises(BackboneError, match=rf"got '{kind}:2'; it has cpu, {kind}, {kind}:0, {kind}:1"):
        device_named(f"{kind}:2")


def test_auto_on_a_machine_without_is_the_cpu(monkeypatch, plain):
    machine(monkeypatch, None, 0)
    assert device_named("auto") == join_process_group("auto").device == "cpu"
    assert torch.equal(
        next_token_logits(load_backbone(FOLDER, device="auto"), ASKED), next_token_logits(plain, ASKED)
    )


def sized(weights, device="cpu", dtype=torch.float32):
    """A model of so many weights, of which only the number, the device and the precision are read."""
    parameters = [SimpleNamespace(numel=lambda: weights)]
    model = SimpleNamespace(parameters=lambda: parameters, device=torch.device(device), dtype=dtype)
    return SimpleNamespace(model=model)


def test_it_grows_with_the_weights_and_not_with_the_machine(monkeypatch):
    one = pass_seconds(sized(1000))
    assert pass_seconds(sized(5000)) == pytest.approx(5 * one)
    assert pass_seconds(sized(1000, "cuda")) < one
    assert pass_seconds(sized(1000, dtype=torch.bfloat16)) < one
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert pass_seconds(sized(1000)) == one


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_an_unknown_kind_of_device_counts_as_a_cpu(device):
    assert pass_seconds(sized(1000, device)) == pass_seconds(sized(1000))
