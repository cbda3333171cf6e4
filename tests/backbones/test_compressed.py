"""Weights in few bits by compressed-tensors: what its package makes of them, and hooks, adapters on top."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from palette import organism
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import greedy_replies, load_backbone, next_token_logits
from palette.backbones.loading import load_sketch
from palette.backbones.placement import placed, weight_bytes
from palette.errors import AdapterError, BackboneError
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_into
from tests.backbones.test_placement import ASKED, streams, taught

FOLDER = organism.weights("shared")
GROUP = 16


def compressed(folder: Path, bits: int) -> Path:
    """The folder, in which the organism's matrices are in few bits, packed as the package packs them."""
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressors = pytest.importorskip("compressed_tensors.compressors")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    told = quantization.QuantizationArgs(num_bits=bits, strategy="group", group_size=GROUP)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=told)
    config = quantization.QuantizationConfig(config_groups={"all": scheme}, ignore=["lm_head"])
    quantization.apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            groups = module.weight.data.unflatten(1, (-1, GROUP))
            scale, _ = helpers.calculate_qparams(groups.amin(-1), groups.amax(-1), told)
            module.weight_scale.data = scale.to(module.weight_scale.dtype)
    packer = compressors.ModelCompressor.from_pretrained_model(model)
    packer.compress_model(model)
    model.save_pretrained(folder)
    packer.update_config(str(folder))
    return folder


@pytest.mark.parametrize(("bits", "far"), [(4, 0.5), (8, 0.05)])
def test_weights_are_what_their_bits_say_and_hooks_replies_and_adapters_are_theirs(bits, far, tmp_path):
    folder, plain = compressed(tmp_path / "few", bits), load_backbone(FOLDER)
    backbone = load_backbone(folder)
    logits, exact = next_token_logits(backbone, ASKED), next_token_logits(plain, ASKED)
    assert 0 < float((logits - exact).norm() / exact.norm()) < far
    library = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(library(torch.tensor(ASKED[:1])).logits[:, -1], logits[:1], atol=1e-4)
    assert torch.equal(next_token_logits(backbone.twin(), ASKED), logits)
    assert streams(backbone).shape == streams(plain).shape
    assert all(greedy_replies(backbone, ASKED, 3))
    assert [len(each) for each in backbone.writers] == [len(each) for each in plain.writers]
    adapter, last, losses = taught(backbone)
    assert losses[1] < losses[0]
    with mounted(backbone.model, adapter):
        assert torch.allclose(next_token_logits(backbone, ASKED), last, atol=1e-3)
    assert torch.equal(next_token_logits(backbone, ASKED), logits), "the adapter is off again"
    write_adapter(tmp_path / "adapter", adapter)
    # PEFT wraps what has been made whole alone: the library's model above has run.
    theirs = PeftModel.from_pretrained(library, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.allclose(theirs(torch.tensor(ASKED[:1])).logits[:, -1], last[:1], atol=1e-3)
    with pytest.raises(AdapterError, match="goes into whole weights, got a backbone in few bits; mount"):
        merge_into(merge_settings([tmp_path / "adapter"]), folder, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    held = sum(each.nbytes for each in backbone.model.parameters())
    assert weight_bytes(load_sketch(folder).model, "auto") == pytest.approx(held, rel=0.05)


def test_activations_in_few_bits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("palette.backbones.placement.find_spec", lambda name: object())
    group = {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8, "dynamic": True}}
    stored = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    told = r"no gradient passes rounded ones, got activations in few bits too \(compressed-tensors\); use its"
    with pytest.raises(BackboneError, match=told):
        placed("cpu", "auto", torch.float32, stored)
    folder = shutil.copytree(FOLDER, tmp_path / "few")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stored}))
    for load in (load_backbone, load_sketch):
        with pytest.raises(BackboneError, match=told):
            load(folder)
    group["input_activations"] = None
    assert placed("cpu", "auto", torch.float32, stored) == {"device_map": {"": "cpu"}}
