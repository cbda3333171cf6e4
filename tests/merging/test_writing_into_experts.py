"""Fused experts written into the very folder that the adapter was trained on, however they lie there."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from palette.adapters.backbone_weights import BackboneWeights
from palette.errors import AdapterError
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_into

SIZES: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def qwen() -> PreTrainedModel:
    """Experts one by one on disk; gate_up_proj is square here."""
    config = Qwen3MoeConfig(**SIZES, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2)
    return Qwen3MoeForCausalLM(config)


def mixtral() -> PreTrainedModel:
    """Experts one by one, under other names than once loaded."""
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2))


def gpt_oss() -> PreTrainedModel:
    """Experts as one tensor on disk, [d_in, d_out] each; down_proj is square here."""
    sizes = {**SIZES, "intermediate_size": 16}
    config = GptOssConfig(
        **sizes, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"] * 2
    )
    return GptOssForCausalLM(config)


@pytest.mark.parametrize("make", [qwen, mixtral, gpt_oss])
@pytest.mark.parametrize("targets", [EXPERTS, EXPERTS[:1], EXPERTS[1:]])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_the_adapter_was_trained_on_takes_it(tmp_path: Path, make: Any, targets: list[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(tmp_path / "base")

        def base() -> PreTrainedModel:
            return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)

        torch.manual_seed(1)
        config = LoraConfig(
            r=2, lora_alpha=6, target_modules=["q_proj"], target_parameters=targets, init_lora_weights=False
        )
        get_peft_model(base(), config).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    ids = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base(), tmp_path / "adapter").eval()(ids).logits
        merge_into(merge_settings([tmp_path / "adapter"]), tmp_path / "base", tmp_path / "into")
        into = AutoModelForCausalLM.from_pretrained(tmp_path / "into", dtype=torch.float32)
        ours, plain = into(ids).logits, base()(ids).logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert (plain - theirs).abs().max() > 1e-3
    before, after = (load_file(tmp_path / one / "model.safetensors") for one in ("base", "into"))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all("q_proj" in key or "experts" in key for key in changed)


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_a_stack_is_rounded_once(tmp_path: Path, dtype: str | None) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    stack = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    save_file({"e.w": stack.half(), "other": torch.ones(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    generator = torch.Generator().manual_seed(1)
    factors = {
        "base_model.model.e.lora_A.weight": torch.randn(6, 5, generator=generator),
        "base_model.model.e.lora_B.weight": torch.randn(4, 6, generator=generator),
    }
    (tmp_path / "a").mkdir()
    save_file(factors, tmp_path / "a" / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_parameters": ["e.w"]}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(stated))
    options = {"dtype": dtype} if dtype else {}
    found = merge_into(merge_settings([tmp_path / "a"], options), folder, tmp_path / "out")
    assert found["changed"] == 3
    down, up = (factors[f"base_model.model.e.lora_{side}.weight"] for side in "AB")
    delta = torch.einsum("ore,eri->eoi", up.reshape(4, 2, 3), down.reshape(3, 2, 5))
    written = load_file(tmp_path / "out" / "model.safetensors")["e.w"]
    expected = (stack.half().float() + delta).to(getattr(torch, dtype or "float16"))
    assert written.dtype is expected.dtype
    assert torch.allclose(written.float(), expected.float(), rtol=2e-2, atol=1e-5)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qwen().save_pretrained(tmp_path)
    weights = BackboneWeights(tmp_path)
    gate = "model.layers.0.mlp.experts.gate_up_proj"
    assert [place.key.split(".")[-2] for place in weights.places(f"{gate}[3]", (16, 16))] == [
        "gate_proj",
        "up_proj",
    ]
    for name, shape, got in (
        (f"{gate}[4]", (16, 16), "got fewer experts"),
        (f"{gate}[0]", (16, 8), r"got F32 \[16, 16\] for a delta \[16, 8\]"),
        ("model.layers.0.mlp.experts.none[0]", (16, 8), "got none"),
        ("model.layers.0.mlp.gate.weight[1]", (4, 16), r"got \[4, 16\]"),
    ):
        with pytest.raises(AdapterError, match=got):
            weights.places(name, shape)
    weights.places("model.layers.0.mlp.gate.weight[0]", (4, 16))
