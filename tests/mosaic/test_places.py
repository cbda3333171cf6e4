"""Where a prefix stands: with and without a system prompt, in templates of other shapes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from palette.backbones import Backbone
from palette.errors import BackboneError
from palette.mosaic.mounting import mounted_tokens
from palette.mosaic.places import insertion

LIST, SUM = ["give", "me", "the", "list", "."], ["what", "is", "1", "plus", "2", "?"]
USER = {"role": "user", "content": "what is 1 plus 2 ?"}
SYSTEM = {"role": "system", "content": "give me the list ."}


@pytest.mark.parametrize(
    ("place", "messages", "before"),
    [
        ("before", [USER], []),
        ("bos", [USER], ["<|begin|>"]),
        ("turn", [USER], ["<|begin|>", "<|user|>"]),
        ("before", [SYSTEM, USER], []),
        ("bos", [SYSTEM, USER], ["<|begin|>"]),
        ("turn", [SYSTEM, USER], ["<|begin|>", "<|system|>", *LIST, "<|end|>", "<|user|>"]),
        ("end", [USER], ["<|begin|>", "<|user|>", *SUM]),
        ("turn", [USER, {"role": "assistant", "content": "two ."}, USER], ["<|begin|>", "<|user|>"]),
    ],
)  # fmt: skip
def test_places(backbone, place, messages, before):
    ids = backbone.render(messages)
    assert backbone.tokenizer.convert_ids_to_tokens(ids[: insertion(backbone, ids, place)]) == before


def test_a_mounted_backbone_finds_the_same_place(backbone, tokens):
    with mounted_tokens(backbone, tokens("turn"), ["alpha"]) as controlled:
        rendered = controlled.render([SYSTEM, USER])
        start = rendered.index(controlled.ids(["alpha"])[0])
    assert start == insertion(backbone, backbone.render([SYSTEM, USER]), "turn")


def test_no_bos_token_means_before_everything(backbone):
    other = copy.deepcopy(backbone.tokenizer)
    other.bos_token = "<|end|>"
    assert insertion(replace(backbone, tokenizer=other), backbone.render([USER]), "bos") == 0


def test_a_template_without_a_system_role(backbone, monkeypatch):
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(backbone.tokenizer, "chat_template", template + backbone.tokenizer.chat_template)
    plain = Backbone(backbone.model, backbone.tokenizer, "plain", "")
    assert insertion(plain, plain.render([USER]), "turn") == 2


def test_a_prompt_without_a_turn_is_refused(backbone):
    with pytest.raises(BackboneError, match="must have a user's turn for control tokens to stand in it"):
        insertion(backbone, [9, 9, 9], "turn")
