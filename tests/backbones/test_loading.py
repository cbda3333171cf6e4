from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from palette import models
from palette.backbones import load_backbone, loading
from palette.backbones.loading import load_sketch, precision
from palette.errors import BackboneError
from palette.models import identify, locate
from tools.organism.language import Size, build_model, build_tokenizer, save
from tools.organism.world import create_world, small


@pytest.fixture
def folder(tmp_path):
    tokenizer = build_tokenizer(small(create_world(0)))
    save(build_model(tokenizer, Size(16, 2, 2, 16), 0), tokenizer, tmp_path, torch.float32)
    return tmp_path


def message(call) -> str:
    with pytest.raises(BackboneError) as caught:
        call()
    return str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path):
    assert "a model folder must hold a config.json, got none" in message(lambda: locate(str(tmp_path)))


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "justaword", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_name_is_refused(name):
    law = "model must be 'organism', a local folder, a GGUF file or a hub name"
    assert law in message(lambda: locate(name))


def test_a_hub_name_that_cannot_be_fetched_is_one_sentence():
    assert "that can be fetched, got 'nobody/nothing'" in message(lambda: locate("nobody/nothing"))


def test_damaged_weights_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 20)
    assert "must hold a causal language model and its tokenizer" in message(lambda: load_backbone(folder))


def test_weights_that_are_missing_are_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    told = "ValueError: no weights for model.layers.1.mlp.up_proj.weight and 0 others; check its files"
    assert told in message(lambda: load_backbone(folder))


def test_a_model_without_a_chat_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    assert "a backbone must be a chat model" in message(lambda: load_backbone(folder))


def test_the_fingerprint_follows_the_model_and_nothing_else(folder):
    before = identify(folder)
    (folder / "acceptance.json").write_text("{}")
    assert identify(folder) == before == load_backbone(folder).fingerprint
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert identify(folder) != before


def test_a_backbone_is_frozen_and_knows_its_parts(folder):
    backbone = load_backbone(folder)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert (backbone.layers, backbone.width, len(backbone.blocks)) == (2, 16, 2)
    assert backbone.post_instruction == 2


def test_few_kernels_are_kept_unless_the_user_says_how_many(folder, monkeypatch):
    for variable in loading.SHAPES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    load_backbone(folder)
    assert {os.environ[variable] for variable in loading.SHAPES} == {"7", "16"}


def test_the_head_is_given_last_positions_that_lie_side_by_side(folder):
    backbone, seen = load_backbone(folder), []
    for each in (backbone, backbone.twin()):
        head = each.model.get_output_embeddings()
        head.register_forward_pre_hook(lambda module, args: seen.append(args[0].is_contiguous()))
        each.model(input_ids=torch.tensor([[1, 5, 6, 7], [1, 5, 8, 9]]), logits_to_keep=2)
    assert seen == [True, True]


def test_a_large_model_runs_in_half_precision_where_the_device_has_units_for_it(folder, monkeypatch):
    assert (
        precision("auto", folder, "cpu") == load_backbone(folder, dtype="auto").model.dtype == torch.float32
    )
    monkeypatch.setattr(models, "LARGE", 1)
    for units, wanted in (
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        assert precision("auto", folder, "cpu") == load_backbone(folder, dtype="auto").model.dtype == wanted
        assert load_sketch(folder, dtype="auto").model.dtype == wanted
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    assert precision("auto", folder, "cpu") == precision("auto", folder, "meta") == torch.float32
    assert precision("float16", folder, "cpu") == torch.float16


QWEN = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
ALWAYS = "<think>\n"


def with_ending(folder, ending: str) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + ending)


def said(backbone, thinking) -> str:
    ids = replace(backbone, thinking=thinking).render([{"role": "user", "content": "why?"}])
    return backbone.tokenizer.decode(ids)


@pytest.mark.parametrize("ending", [QWEN, ALWAYS])
def test_a_thinking_block_is_closed_before_the_reply_unless_it_may_stay_open(folder, ending):
    plain = load_backbone(folder)
    with_ending(folder, ending)
    backbone = load_backbone(folder)
    assert len(said(backbone, "closed")) > len(said(backbone, "open")) >= len(said(plain, "closed"))
    assert replace(backbone, thinking="closed").post_instruction > plain.post_instruction


def test_a_template_without_thinking_is_rendered_alike(folder):
    backbone = load_backbone(folder)
    assert said(backbone, "closed") == said(backbone, "open")
