"""What is exported is read back by the tools it is for, and does there what it does here."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from palette import organism
from palette.activations import edited
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import load_backbone, next_token_logits
from palette.directions import Directions, Intervention, StrengthKernel, intervening
from palette.errors import AdapterError, BackboneError, OutputError, RecipeError
from palette.evaluation.refusal_ngrams import RefusalNgrams
from palette.files import write_json, write_tensors
from palette.models import identify
from palette.search.space import FRONT, MEANS
from palette.stages.export import export, layer_vectors

gguf = pytest.importorskip("gguf")

HEADS, GROUPS = 4, 2
SIZE = {
    "vocab_size": 901, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "pad_token_id": 0,
    "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
LLAMA, QWEN = (LlamaConfig, LlamaForCausalLM), (Qwen2Config, Qwen2ForCausalLM)


def model_in(folder, kind=LLAMA, **more):
    shutil.copytree(organism.weights("shared"), folder)
    (folder / "model.safetensors").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind[1](kind[0](**SIZE, **more))
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=1.0 if "embed" in name else 0.15)
    model.save_pretrained(folder)
    return folder


def adapter_for(folder, path, leave_out=()):
    """One of every matrix of the blocks, whose ranks and scales differ."""
    model, draw = load_backbone(folder).model, torch.Generator().manual_seed(1)
    modules = {}
    for index in range(2):
        for place, part in enumerate(PARTS):
            if part in leave_out:
                continue
            name, rank = f"model.layers.{index}.{part}", 1 + place % 3
            d_out, d_in = model.get_submodule(name).weight.shape
            shapes = (rank, d_in), (d_out, rank)
            down, up = (torch.randn(*shape, generator=draw) / 8 for shape in shapes)
            modules[name] = LoraModule(down, up, 0.5 + place)
    write_adapter(path, Adapter(modules, BackboneIdentity("tiny", identify(folder))))
    return modules


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = model_in(tmp_path_factory.mktemp("llama") / "model")
    return folder, adapter_for(folder, folder.parent / "adapter"), folder.parent / "adapter"


def turned(weight, heads):
    """llama.cpp's order of the rows of queries and keys."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def read(path):
    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items() if "." in name}
    return facts, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


@pytest.mark.parametrize("kind", [LLAMA, QWEN])
def test_every_delta_stands_there_under_llama_cpp_s_name_and_in_its_order(tmp_path, kind):
    folder = model_in(tmp_path / "model", kind)
    modules = adapter_for(folder, tmp_path / "adapter")
    result = export(tmp_path / "adapter", model=str(folder))
    facts, tensors = read(tmp_path / "adapter" / "adapter.gguf")
    family = {LLAMA: "llama", QWEN: "qwen2"}[kind]
    assert (facts["general.architecture"], facts["general.type"]) == (family, "adapter")
    assert facts["adapter.type"] == "lora"
    assert facts["adapter.lora.alpha"] == result["rank"] >= 3
    assert len(tensors) == 2 * len(modules) == 2 * result["modules"]
    for name, module in modules.items():
        block, part = name.removeprefix("model.layers.").split(".", 1)
        stored = f"blk.{block}.{PARTS[part]}.weight"
        a, b = tensors[f"{stored}.lora_a"], tensors[f"{stored}.lora_b"]
        # llama.cpp's scale: alpha by the rank of each tensor.
        delta = facts["adapter.lora.alpha"] / b.shape[1] * (b @ a)
        expected = module.delta().float().numpy()
        heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(PARTS[part])
        if heads and kind is LLAMA:
            assert not np.allclose(turned(expected, heads), expected)
            expected = turned(expected, heads)
        assert np.allclose(delta, expected, atol=1e-5), name


def test_llama_cpp_replies_as_we_do(llama, tmp_path):
    """The adapter on the backbone in GGUF, greedily, token by token."""
    xllamacpp = pytest.importorskip("xllamacpp")
    folder, _, adapter = llama
    base = backbone_in_gguf(folder, tmp_path / "base.gguf")
    export(adapter, output=tmp_path, model=str(folder))
    backbone, prompts = load_backbone(folder), [[1, 5, 6, 7, 300], [1, 80, 91, 10, 11, 500, 2, 17]]
    replies = {}
    for name in ("plain", "adapted"):
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_gpu_layers, params.warmup = str(base), 128, 0, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        if name == "adapted":
            lora = xllamacpp.CommonAdapterLoraInfo()
            lora.path, lora.scale = str(tmp_path / "adapter.gguf"), 1.0
            params.lora_adapters = [lora]
        server = xllamacpp.Server(params)
        replies[name] = [
            said_by(server, {"prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True})
            for ids in prompts
        ]
    with mounted(backbone.model, Adapter(llama[1])):
        ours = unended(backbone, prompts)
    assert replies["plain"] == unended(backbone, prompts)
    assert replies["adapted"] == ours != replies["plain"]


def said_by(server, asked):
    """The numbers of the words that it says."""
    return [int(word) for word in server.handle_completions(asked)["choices"][0]["text"].split("w")[1:]]


def unended(backbone, prompts):
    """Eight greedy tokens, whatever would end a reply."""
    said = []
    for ids in prompts:
        row = list(ids)
        for _ in range(8):
            logits = next_token_logits(backbone, [row])[0].clone()
            logits[2] = -torch.inf
            row.append(int(logits.argmax()))
        said.append(row[len(ids) :])
    return said


def backbone_in_gguf(folder, path):
    """A Llama as llama.cpp keeps it, in single precision, with words for its tokens."""
    model = LlamaForCausalLM.from_pretrained(folder)
    words = [f"w{index}" for index in range(SIZE["vocab_size"])]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(SIZE["hidden_size"])
    writer.add_feed_forward_length(SIZE["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_dimension_count(SIZE["hidden_size"] // HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["w 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, weight in model.named_parameters():
        module = name.removesuffix(".weight")
        numbers = weight.detach().numpy()
        if module not in names:
            block, part = module.removeprefix("model.layers.").split(".", 1)
            stored = {**PARTS, **norms}[part]
            heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(stored)
            numbers = turned(numbers, heads) if heads else numbers
            names[module] = f"blk.{block}.{stored}"
        writer.add_tensor(f"{names[module]}.weight", np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def searched(tmp_path):
    """What collect and search leave in a run's folder, of random means."""
    draw = torch.Generator().manual_seed(2)
    folder = tmp_path / "run"
    shared = load_backbone(organism.weights("shared"))
    shape = (shared.layers + 1, shared.post_instruction, shared.width)
    means = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name in ("target", "benign")}
    card = {
        "refusal_ngrams": {"refusals": [], "answers": []}, "judge_openings": [], "counts": {},
        "separations": {}, "floor_tokens": 12,
    }  # fmt: skip
    write_tensors(folder / MEANS, means, card)
    chosen = Intervention("activation_addition", -1, StrengthKernel(2, shared.layers, 1.0))
    write_json(folder / FRONT, {"front": [{"trial": 4, "intervention": chosen.to_json()}]})
    return folder, shared, Directions(**means), chosen


def test_a_vector_of_weight_minus_one_is_activation_addition(searched, monkeypatch):
    _, shared, directions, chosen = searched
    vectors = layer_vectors(directions, chosen)
    assert sorted(vectors) == list(range(shared.layers))
    prompts = [[1, 5, 6, 7], [1, 8, 9]]
    with intervening(shared, directions, chosen):
        ours = next_token_logits(shared, prompts)
    with edited(
        shared.blocks, {layer + 1: lambda x, row=row: x - row.float() for layer, row in vectors.items()}
    ):
        added = next_token_logits(shared, prompts)
    assert torch.allclose(ours, added, atol=1e-4)
    assert not torch.allclose(next_token_logits(shared, prompts), ours, atol=1e-2)


@pytest.fixture
def ngrams(monkeypatch):
    """What was learned of refusals is none of this."""
    monkeypatch.setattr(RefusalNgrams, "from_json", classmethod(lambda cls, values: None))


def test_control_vectors_are_read_by_gguf_and_repeng(searched, ngrams, monkeypatch):
    folder, shared, directions, chosen = searched
    result = export(folder, "control-vector", model="organism/shared")
    vectors = layer_vectors(directions, chosen)
    facts, tensors = read(result["file"])
    assert facts["general.architecture"] == "controlvector"
    assert (facts["controlvector.model_hint"], facts["controlvector.layer_count"]) == (
        "llama",
        shared.layers - 1,
    )
    assert sorted(tensors) == [f"direction.{layer}" for layer in range(1, shared.layers)]
    for layer in range(1, shared.layers):
        assert np.allclose(tensors[f"direction.{layer}"], vectors[layer].float().numpy())
        assert result["lengths"][layer] == pytest.approx(float(vectors[layer].norm()))
    # It names what numpy 2 has no longer.
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    repeng = pytest.importorskip("repeng")
    theirs = repeng.ControlVector.import_gguf(result["file"])
    assert theirs.model_type == "llama" and sorted(theirs.directions) == list(range(1, shared.layers))
    model = repeng.ControlModel(shared.twin().model, list(theirs.directions))
    model.set_control(theirs, -1.0)
    with torch.no_grad():
        said = model(input_ids=torch.tensor([[1, 5, 6, 7]])).logits[:, -1]
    edits = {layer + 1: lambda x, row=vectors[layer]: x - row.float() for layer in theirs.directions}
    with edited(shared.blocks, edits):
        assert torch.allclose(said, next_token_logits(shared, [[1, 5, 6, 7]]), atol=1e-4)


def test_a_steering_vector_is_one_of_the_package(searched, ngrams):
    folder, shared, directions, chosen = searched
    result = export(folder, "steering-vector", model="organism/shared")
    activations = {int(name): row for name, row in load_file(result["file"]).items()}
    assert sorted(activations) == list(range(shared.layers))
    steering = pytest.importorskip("steering_vectors")
    with steering.SteeringVector(activations).apply(shared.model, multiplier=-1.0):
        theirs = next_token_logits(shared, [[1, 5, 6, 7]])
    with intervening(shared, directions, chosen):
        assert torch.allclose(theirs, next_token_logits(shared, [[1, 5, 6, 7]]), atol=1e-4)


def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(llama, tmp_path):
    folder, _, adapter = llama
    with pytest.raises(RecipeError, match="a format must be one of gguf, control-vector, steering-vector"):
        export(adapter, "onnx", tmp_path, str(folder))
    with pytest.raises(OutputError, match="report"):
        export(adapter, "gguf", tmp_path)
    with pytest.raises(OutputError):
        export(adapter, "control-vector", tmp_path, str(folder))
    with pytest.raises(AdapterError, match=r"got one for tiny \(\w{12}\); name it with --model"):
        export(adapter, "gguf", tmp_path, "organism/shared")
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neox"}))
    write_adapter(tmp_path / "neox", Adapter(llama[1], BackboneIdentity("neox")))
    with pytest.raises(BackboneError, match=r"must be for one of llama, .*, got gpt_neox; serve the folder"):
        export(tmp_path / "neox", "gguf", tmp_path, str(other))
    odd = {"model.layers.0.mlp.odd_proj": LoraModule(torch.ones(1, 64), torch.ones(64, 1))}
    write_adapter(tmp_path / "odd", Adapter(odd, BackboneIdentity("odd")))
    with pytest.raises(AdapterError, match=r"a matrix of its own in llama\.cpp's llama, got .*odd_proj"):
        export(tmp_path / "odd", "gguf", tmp_path, str(folder))
    assert not list(tmp_path.glob("*.gguf"))
