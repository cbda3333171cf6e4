"""A model in one GGUF file: what its name stands for, and that it is made a folder once, with its numbers."""

from __future__ import annotations

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from palette.backbones import greedy_replies, load_backbone
from palette.backbones.gguf import dequantised
from palette.errors import BackboneError
from palette.models import gguf_file, identify

gguf = pytest.importorskip("gguf")

WIDTH, INNER, BLOCKS, HEADS = 32, 64, 2, 2
MARKS = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A Llama of random numbers, its matrices in eight bits."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    words = [*MARKS, *sorted(ByteLevel.alphabet()), "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3] * len(MARKS) + [1] * (len(words) - len(MARKS)))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    draw = torch.Generator().manual_seed(0)

    def add(name, *shape):
        numbers = torch.randn(shape, generator=draw).mul(0.05).numpy()
        if len(shape) == 1:
            writer.add_tensor(name, numbers + 1)
        else:
            eight = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(numbers, eight), raw_dtype=eight)

    add("token_embd.weight", len(words), WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", len(words), WIDTH)
    for block in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{block}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{block}.{name}.weight", INNER, WIDTH)
        add(f"blk.{block}.ffn_down.weight", WIDTH, INNER)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{block}.{name}.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_a_folder_with_one_and_a_package_are_the_same_model(file, tmp_path, monkeypatch):
    assert gguf_file(str(file)) == file
    assert gguf_file(str(file.parent)) == file
    package = tmp_path / "brings_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a package that brings a model is not run')")
    (package / file.name).write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert gguf_file("package:brings_a_model") == package / file.name


@pytest.mark.parametrize("name", ["organism", "someone/some-model", "/nowhere"])
def test_another_name_stands_for_no_such_file(name):
    assert gguf_file(name) is None


def test_a_folder_of_a_model_is_that_model_whatever_else_it_holds(file, tmp_path):
    (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    assert gguf_file(str(tmp_path)) is None


def test_what_cannot_be_meant_is_told(tmp_path):
    with pytest.raises(BackboneError, match="a GGUF model must be a file, got none"):
        gguf_file(str(tmp_path / "missing.gguf"))
    with pytest.raises(BackboneError, match="a model's package must be installed"):
        gguf_file("package:nobody_has_this")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(BackboneError, match=r"must be one GGUF file, got a\.gguf, b\.gguf"):
        gguf_file(str(tmp_path))


def test_it_is_dequantised_once_and_is_a_backbone(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path))
    folder = dequantised(file)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    digest = identify(folder)
    assert dequantised(file) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing half-made is left"
    backbone = load_backbone(folder)
    assert backbone.model.dtype is torch.float32
    (reply,) = greedy_replies(backbone, [backbone.encode("hello")], 4)
    assert len(reply) <= 4
    # Made again elsewhere, it is the same model: an adapter made on one fits the other.
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path / "other"))
    assert identify(dequantised(file)) == digest


def test_its_numbers_are_those_of_the_file(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path))
    model = load_backbone(dequantised(file)).model
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    down = stored["blk.1.ffn_down.weight"]
    numbers = torch.tensor(gguf.quants.dequantize(down.data, down.tensor_type))
    assert torch.equal(model.model.layers[1].mlp.down_proj.weight, numbers)


def test_a_damaged_file_is_one_sentence_and_leaves_nothing(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(BackboneError, match="a GGUF file must hold a causal language model"):
        dequantised(broken)
    assert not (tmp_path / "cache" / "models").exists()
