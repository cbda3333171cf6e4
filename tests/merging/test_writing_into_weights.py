"""A merge into weights: what it must change, and everything else byte for byte."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError, RecipeError
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_adapters, merge_into

Planter = Callable[[int], Path]
NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def backbone(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path / "backbone"
    size = f"{7 * request.param.itemsize}KB"
    LlamaForCausalLM(config).to(request.param).save_pretrained(folder, max_shard_size=size)
    (folder / "notes.txt").write_text("kept")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    def write(seed: int) -> Path:
        generator = torch.Generator().manual_seed(seed)
        shapes = {NAMES[0]: (32, 32), NAMES[1]: (32, 48)}
        modules = {
            name: LoraModule(
                0.1 * torch.randn(2, d_in, generator=generator), torch.randn(d_out, 2, generator=generator)
            )
            for name, (d_out, d_in) in shapes.items()
        }
        write_adapter(tmp_path / f"a{seed}", Adapter(modules, BackboneIdentity("tiny")))
        return tmp_path / f"a{seed}"

    return write


def fuse(path: Path | list[Path], *places: Path, **options: object) -> dict[str, object]:
    return merge_into(merge_settings(path if isinstance(path, list) else [path], options), *places)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


@pytest.mark.parametrize("method", ["weighted_sum", "ties"])
def test_deltas_are_added_and_rounded_once(
    backbone: Path, plant: Planter, tmp_path: Path, method: str
) -> None:
    options = {"density": 1.0} if method == "ties" else {}
    found = fuse(plant(1), backbone, tmp_path / "out", method=method, options=options)
    before, after, adapter = weights_of(backbone), weights_of(tmp_path / "out"), read_adapter(tmp_path / "a1")
    assert set(after) == set(before)
    for key, weight in before.items():
        if (name := key.removesuffix(".weight")) in NAMES:
            exact = weight.double() + adapter.modules[name].delta()
            error = (after[key].double() - exact).abs()
            assert (error <= 1.01 * torch.finfo(weight.dtype).eps * exact.abs() + 1e-7).all()
            assert not torch.equal(after[key], weight)
        else:
            assert torch.equal(after[key], weight)
    assert found["changed"] == 2
    same = {
        path.name
        for path in backbone.iterdir()
        if (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    }
    changed = {path.name for path in backbone.iterdir()} - same
    index = json.loads((backbone / "model.safetensors.index.json").read_text())["weight_map"]
    assert changed == {index[f"{name}.weight"] for name in NAMES}


def test_another_precision_is_stated(backbone: Path, plant: Planter, tmp_path: Path) -> None:
    fuse([plant(1), plant(2)], backbone, tmp_path / "out", dtype="float16")
    assert {weight.dtype for weight in weights_of(tmp_path / "out").values()} == {torch.float16}
    model = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype is torch.float16
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    total = sum(weight.numel() * 2 for weight in weights_of(tmp_path / "out").values())
    assert index["metadata"]["total_size"] == total


def test_what_does_not_fit_leaves_nothing(backbone: Path, plant: Planter, tmp_path: Path) -> None:
    other = Adapter({"model.layers.7.mlp.down_proj": LoraModule(torch.ones(1, 48), torch.ones(32, 1))})
    write_adapter(tmp_path / "other", other)
    with pytest.raises(
        AdapterError, match=r"must have a weight for model\.layers\.7\.mlp\.down_proj, got none"
    ):
        fuse(tmp_path / "other", backbone, tmp_path / "out")
    wide = Adapter({NAMES[0]: LoraModule(torch.ones(1, 31), torch.ones(32, 1))})
    write_adapter(tmp_path / "wide", wide)
    with pytest.raises(AdapterError, match=r"got \w+ \[32, 32\] for a delta \[32, 31\]"):
        fuse(tmp_path / "wide", backbone, tmp_path / "out")
    with pytest.raises(AdapterError, match="keeps all of ΔW"):
        fuse(plant(1), backbone, tmp_path / "out", rank=1)
    with pytest.raises(AdapterError, match="must be a local folder with safetensors files, got none"):
        BackboneWeights(tmp_path / "nowhere").places("x", (1, 1))
    with pytest.raises(RecipeError, match="writes a whole model"):
        fuse(plant(1), backbone)
    assert not (tmp_path / "out").exists()


def test_dora_is_merged_as_peft_merges_it(backbone: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(backbone, dtype=torch.float32)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], use_dora=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dora = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in dora.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter).abs()
    dora.save_pretrained(tmp_path / "dora")
    with pytest.raises(AdapterError, match="DoRA, which rescales the backbone's own weights"):
        merge_adapters(merge_settings([tmp_path / "dora"]), tmp_path / "refused")
    fuse(tmp_path / "dora", backbone, tmp_path / "out", dtype="float32")
    theirs = dora.merge_and_unload().state_dict()
    ours = weights_of(tmp_path / "out")
    for layer in range(2):
        key = f"model.layers.{layer}.self_attn.q_proj.weight"
        assert torch.allclose(ours[key], theirs[key], atol=1e-5), key
        assert not torch.allclose(ours[key], weights_of(backbone)[key].float(), atol=1e-3)
    asked = merge_settings([tmp_path / "dora"], {"backbone": backbone})
    assert merge_adapters(asked, tmp_path / "merged").rank == 32
    delta = theirs[key].double() - weights_of(backbone)[key].double()
    own = read_adapter(tmp_path / "merged").modules[key.removesuffix(".weight")].delta()
    assert float((own - delta).norm() / delta.norm()) < 1e-4


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_a_weight_that_lies_the_other_way_round_is_merged_as_peft_merges_it(tmp_path: Path) -> None:
    """GPT-2's Conv1D keeps [d_in, d_out], and one of them is square, so that no shape tells."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 61}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path / "backbone")
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn", "c_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(tmp_path / "peft")
    fuse(tmp_path / "peft", tmp_path / "backbone", tmp_path / "out")
    theirs = wrapped.merge_and_unload().state_dict()
    ours = GPT2LMHeadModel.from_pretrained(tmp_path / "out").state_dict()
    before = weights_of(tmp_path / "backbone")
    for key in ("attn.c_attn", "attn.c_proj", "mlp.c_proj"):
        name = f"transformer.h.1.{key}.weight"
        assert torch.allclose(ours[name], theirs[name], atol=1e-6), name
        assert not torch.allclose(ours[name], before[name], atol=1e-2)


STALE = (
    "pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.safetensors", "consolidated.00.pth",
    "model.gguf", "model.fp16.safetensors", "tf_model.h5",
)  # fmt: skip


@pytest.mark.parametrize("sharded", [True, False])
def test_no_second_set_of_weights_is_copied(plant: Planter, tmp_path: Path, sharded: bool) -> None:
    """Without the merge they are stale, and some loaders prefer them."""
    folder = tmp_path / "backbone"
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="8KB" if sharded else "1GB")
    stale = [*STALE, *([] if sharded else ["model.safetensors.index.json"])]
    for name in stale:
        (folder / name).write_text("{}")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "consolidated.safetensors").write_bytes(next(folder.glob("model*.safetensors")).read_bytes())
    for name in ("notes.txt", "vocab.bin"):
        (folder / name).write_text("kept")
    fuse(plant(1), folder, tmp_path / "out", dtype="float16")
    written = {path.name for path in (tmp_path / "out").iterdir()} - {"run.json"}
    assert written == {path.name for path in folder.iterdir()} - set(stale)
    assert LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype is torch.float16


def test_weights_that_are_not_loaded_from_safetensors_are_refused(
    backbone: Path, plant: Planter, tmp_path: Path
) -> None:
    for path in [*backbone.glob("*.safetensors"), backbone / "model.safetensors.index.json"]:
        path.unlink()
    (backbone / "consolidated.safetensors").touch()
    torch.save({}, backbone / "pytorch_model.bin")
    with pytest.raises(AdapterError, match=r"with safetensors files, got pytorch_model\.bin; save it with"):
        fuse(plant(1), backbone, tmp_path / "out")


@pytest.mark.parametrize("both", [False, True])
def test_embeddings_stay_tied(plant: Planter, tmp_path: Path, both: bool) -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, tie_word_embeddings=True,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    folder, out = tmp_path / "backbone", tmp_path / "out"
    LlamaForCausalLM(config).save_pretrained(folder)
    if both:
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    fuse(plant(1), folder, out)
    assert set(weights_of(out)) == set(weights_of(folder))
    again = LlamaForCausalLM.from_pretrained(out)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True
    for name in ("lm_head", "model.embed_tokens"):
        head = Adapter({name: LoraModule(torch.ones(1, 32), torch.ones(50, 1))})
        write_adapter(tmp_path / name, head)
        with pytest.raises(AdapterError, match=rf"of its own, which {name} has not, got one that is tied"):
            fuse(tmp_path / name, folder, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
