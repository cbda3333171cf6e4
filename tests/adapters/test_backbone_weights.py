"""The weights of a backbone in its folder, and Conv1D, whose weight lies the other way round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import open_adapter, read_adapter
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError

# PEFT says that it sets fan_in_fan_out for a Conv1D.
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")


def gpt2() -> GPT2LMHeadModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 61}
        return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


@pytest.fixture(params=[{}, {"use_dora": True}], ids=["lora", "dora"])
def conv_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What PEFT writes for LoRA on every Conv1D of a tiny GPT-2, square ones among them."""
    targets = ["c_attn", "c_proj", "c_fc"]
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=6, target_modules=targets, **request.param)
    model = get_peft_model(gpt2(), config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    model.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    return tmp_path / "peft"


def test_a_conv1d_is_mounted_written_and_read_as_peft_computes_it(
    conv_folder: Path, tokens: torch.Tensor, tmp_path: Path
) -> None:
    gpt2().save_pretrained(tmp_path / "backbone")
    adapter = open_adapter(conv_folder, BackboneWeights(tmp_path / "backbone"))
    assert len(adapter.modules) == 8
    assert adapter.modules["transformer.h.0.attn.c_attn"].shape == (48, 16)
    write_adapter(tmp_path / "ours", adapter)
    model = gpt2()
    with torch.no_grad():
        plain = model(tokens).logits
        theirs = PeftModel.from_pretrained(gpt2(), conv_folder)(tokens).logits
        with mounted(model, read_adapter(tmp_path / "ours")):
            ours = model(tokens).logits
        again = PeftModel.from_pretrained(gpt2(), tmp_path / "ours")(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert (again - theirs).abs().max() <= 1e-5
    assert (plain - theirs).abs().max() > 1e-2


def test_weights_that_lie_the_other_way_round_are_turned(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path)
    weights = BackboneWeights(tmp_path)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        path = f"transformer.h.1.{name}"
        assert weights.transposed(path)
        assert torch.equal(weights(path), model.get_submodule(path).weight.detach().T)
    weights.places("transformer.h.0.attn.c_attn", (48, 16))
    with pytest.raises(AdapterError, match=r"got F32 \[48, 16\] for a delta \[16, 48\]; use the backbone"):
        weights.places("transformer.h.0.attn.c_attn", (16, 48))
    assert not weights.transposed("transformer.wte")


def test_square_weights_with_a_bias_are_turned_only_where_the_model_says_so(
    backbone: Callable[[], LlamaForCausalLM], tmp_path: Path
) -> None:
    sizes = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    biased = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2))
    for number, model in enumerate((biased, backbone())):
        model.save_pretrained(tmp_path / str(number))
        weights = BackboneWeights(tmp_path / str(number))
        for kind in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"):
            path = f"model.layers.0.{kind}"
            assert not weights.transposed(path)
            assert torch.equal(weights(path), model.get_submodule(path).weight.detach())


def test_a_folder_without_the_weight_is_refused(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"must have a weight for transformer\.h\.7\.c_proj, got none"):
        BackboneWeights(tmp_path)("transformer.h.7.c_proj")
