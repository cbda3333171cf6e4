"""Models that see are read as any backbone is; what they are asked here is text."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch
from transformers import AutoModelForImageTextToText

from palette import organism
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import Backbone, greedy_replies, load_backbone, next_token_logits
from palette.backbones.backbone import PICTURED
from palette.backbones.conversion import loaded_names
from palette.backbones.loading import without_weights
from palette.errors import BackboneError
from palette.internalise.lora import lora_layers
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_into
from palette.mosaic.mounting import mounted_tokens
from palette.mosaic.settings import Place
from palette.mosaic.tokens import ControlTokens, identity, initial
from tests.fixtures.noise import noise
from tests.fixtures.seeing import FAMILIES, PARTS, PLAIN, model_of, picture, saved_model, tokenizer_of
from tests.fixtures.seeing import asked as question

QUESTIONS = ("what is 1 plus 2 ?", "tell me .", "what is 3 plus 4 ? tell me .")


@pytest.fixture(scope="module", params=["llava", "gemma", "qwen", "idefics"])
def folder(request, tmp_path_factory):
    """A folder as ``save_pretrained`` leaves it, one of each way in which libraries nest a decoder."""
    return saved_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(folder)


@pytest.fixture(scope="module")
def asked(backbone):
    return [backbone.render([{"role": "user", "content": question}]) for question in QUESTIONS]


def test_a_model_that_sees_is_read_whole(folder, backbone, asked):
    known = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(backbone.model) is type(known)
    assert (backbone.layers, backbone.width, len(backbone.blocks)) == (3, 64, 3)
    assert all(len(writers) == 2 for writers in backbone.writers)
    with torch.no_grad():
        alone = torch.stack([known(torch.tensor([ids])).logits[0, -1] for ids in asked])
    assert torch.allclose(next_token_logits(backbone, asked), alone, atol=1e-5)


def test_its_replies_are_those_of_the_library(backbone, asked):
    for ids, reply in zip(asked, greedy_replies(backbone, asked, 8), strict=True):
        generated = backbone.model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=8, do_sample=False
        )
        assert reply == [token for token in generated[0, len(ids) :].tolist() if token not in backbone.stops]


def test_adapters_and_control_tokens_are_mounted_on_its_decoder_and_leave_it_as_it_was(backbone, asked):
    plain = next_token_logits(backbone, asked)
    layers = lora_layers(backbone, [0, 1])
    assert layers and not any("vision" in name or "visual" in name for name in layers)
    adapter = noise(backbone, layers[0])
    assert list(adapter.modules) == layers[:1]
    with mounted(backbone.model, adapter):
        assert not torch.allclose(next_token_logits(backbone, asked), plain, atol=1e-3)
    made = ControlTokens(initial(backbone, ["alpha", "beta"], 2, 0), identity(backbone))
    with mounted_tokens(backbone, made) as controlled:
        subsets = [(), ("alpha",), ("alpha", "beta")]
        rows = [controlled.prefixed(ids, active) for ids, active in zip(asked, subsets, strict=True)]
        together = next_token_logits(controlled, rows)
        alone = torch.cat([next_token_logits(controlled, [row]) for row in rows])
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together[0], plain[0], atol=1e-5)
    assert torch.equal(next_token_logits(backbone, asked), plain)


@pytest.mark.parametrize("place", get_args(Place))
def test_control_tokens_stand_beside_a_picture(backbone, tmp_path, place):
    seen = [backbone.render(question(QUESTIONS[0], picture(tmp_path, seed))) for seed in (1, 2)]
    made = ControlTokens(initial(backbone, ["alpha", "beta"], 2, 0), identity(backbone), place=place)
    with mounted_tokens(backbone, made, released=False) as controlled:
        subsets = [(), ("alpha", "beta")]
        rows = [controlled.prefixed(ids, active) for ids in seen for active in subsets]
        together = next_token_logits(controlled, rows)
        alone = torch.cat([next_token_logits(controlled, [row]) for row in rows])
        ids, shown = controlled.ids(("alpha", "beta")), [t for t in rows[1] if t >= PICTURED]
        # All but those at the end stand before the picture, and part no picture.
        assert (rows[1].index(ids[0]) < rows[1].index(shown[0])) == (place != "end")
        assert rows[1].index(shown[-1]) - rows[1].index(shown[0]) == seen[0].index(shown[-1]) - seen[0].index(
            shown[0]
        )
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together[::2], next_token_logits(backbone, seen), atol=1e-5)
    assert min(float((a - b).abs().max()) for a in together[::2] for b in together[1::2]) > 1e-3
    assert float((together[0] - together[2]).abs().max()) > 1e-3


@pytest.mark.parametrize("template", [PLAIN, PARTS])
def test_a_message_is_shown_by_templates_of_text_and_of_parts(templated, template):
    shown = templated(template)
    ids = shown.render([{"role": "system", "content": "tell"}, {"role": "user", "content": "what is 3 ?"}])
    assert "what is 3 ?" in shown.decode(ids)
    assert shown.decode(ids).count("tell") == 1


@pytest.mark.parametrize(
    ("template", "got"),
    [
        ("{{ messages[0]['role'] }}", "a rendering without it"),
        ("{{ messages[0]['content']['words']['first'] }}", "UndefinedError"),
    ],
)
def test_a_template_that_does_not_show_what_is_said_is_refused(templated, template, got):
    with pytest.raises(BackboneError, match=got):
        templated(template).render([{"role": "user", "content": "what is 3 ?"}])


def test_the_processors_template_stands_in_for_the_tokenizers(tmp_path):
    tokenizer = tokenizer_of(FAMILIES["llava"])
    tokenizer.chat_template = None
    model_of(FAMILIES["llava"], tokenizer_of(FAMILIES["llava"])).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="must be a chat model"):
        load_backbone(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": PARTS}))
    backbone = load_backbone(tmp_path)
    assert "what is 3 ?" in backbone.decode(backbone.render([{"role": "user", "content": "what is 3 ?"}]))


@pytest.fixture(scope="module")
def templated():
    """The organism with another chat template."""

    def with_template(template: str) -> Backbone:
        found = load_backbone(organism.weights("shared"))
        found.tokenizer.chat_template = template
        return found

    return with_template


def test_an_adapter_goes_into_its_weights_under_the_names_that_they_have_on_disk(
    folder, backbone, asked, tmp_path
):
    adapter = noise(backbone, lora_layers(backbone, [0])[0])
    write_adapter(tmp_path / "adapter", adapter)
    found = merge_into(merge_settings([tmp_path / "adapter"]), folder, tmp_path / "whole")
    assert found["changed"] == 1
    with mounted(backbone.model, adapter):
        expected = next_token_logits(backbone, asked)
    assert torch.allclose(next_token_logits(load_backbone(tmp_path / "whole"), asked), expected, atol=1e-4)


def test_what_is_stored_otherwise_has_no_name_in_the_loaded_model(folder, tmp_path):
    keys = ["model.nothing.weight"]
    assert loaded_names(without_weights(folder), keys) == ({}, {})
    for content in (
        '{"model_type": "none-that-is-known"}',
        '{"model_type": "llava", "text_config": 3}',
        "[1]",
        "{",
    ):
        (tmp_path / "config.json").write_text(content)
        assert loaded_names(without_weights(tmp_path), keys) == ({}, {})
    assert loaded_names(without_weights(tmp_path / "nowhere"), keys) == ({}, {})
