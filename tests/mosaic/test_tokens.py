"""Control tokens as values and as files: shape, order, digest; what is written is read; PEFT's logits."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from palette.adapters.lora import BackboneIdentity
from palette.backbones import next_token_logits
from palette.errors import AdapterError
from palette.files import write_tensors
from palette.mosaic.mounting import mounted_tokens
from palette.mosaic.tokens import (
    TOKENS_FILE,
    TOKENS_FORMAT,
    ControlTokens,
    export_peft,
    initial,
    read_tokens,
    write_tokens,
)


def test_the_table_is_in_canonical_order(backbone, tokens):
    made = tokens()
    turned = ControlTokens(dict(reversed(list(made.embeddings.items()))), made.backbone)
    assert turned.categories == made.categories == ("alpha", "beta", "delta", "gamma", "omega")
    assert torch.equal(turned.table, made.table)
    assert turned.digest == made.digest


def test_the_digest_is_of_what_tokens_do(tokens):
    made = tokens()
    others = [tokens(seed=1), tokens("turn"), ControlTokens(made.embeddings, made.backbone, "authorise")]
    assert len({one.digest for one in (made, *others)}) == 4
    assert ControlTokens(made.embeddings, made.backbone, card={"x": 1}).digest == made.digest


def test_an_added_category_leaves_the_others(tokens):
    made = tokens()
    more = made.with_categories({"kappa": torch.ones(3, made.width)})
    assert len(more.categories) == 6
    assert all(torch.equal(more.embeddings[name], made.embeddings[name]) for name in made.categories)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({}, "of one shape, .* for at least one category, got none"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(3, 4)}, r"got \(2, 4\), \(3, 4\)"),
        ({"a": torch.full((2, 4), torch.inf)}, "must be finite, got NaN or infinity for a"),
    ],
)
def test_what_is_no_set_of_tokens_is_refused(embeddings, message):
    with pytest.raises(AdapterError, match=message):
        ControlTokens(embeddings, BackboneIdentity("x", None))


def test_untrained_tokens_are_spread_as_the_vocabulary(backbone):
    found = initial(backbone, ["a"], 4000, 0)["a"]
    known = backbone.model.get_input_embeddings().weight
    assert torch.allclose(found.mean(0), known.mean(0), atol=0.02)
    assert torch.allclose(found.std(0), known.std(0), rtol=0.15)


def test_the_draw_of_a_category_hangs_on_its_name_alone(backbone):
    one = initial(backbone, ["b"], 3, 0)["b"]
    assert torch.equal(initial(backbone, ["a", "b"], 3, 0)["b"], one)
    assert not torch.equal(initial(backbone, ["b"], 3, 1)["b"], one)
    assert torch.equal(initial(backbone, ["b"], 5, 0)["b"][:3], one)


@pytest.mark.parametrize("place", ["before", "bos", "turn"])
def test_what_is_written_is_read(tokens, tmp_path, place):
    made = tokens(place)
    write_tokens(tmp_path / TOKENS_FILE, made)
    first = (tmp_path / TOKENS_FILE).read_bytes()
    read = read_tokens(tmp_path)
    assert (read.digest, read.place, read.sign, read.card) == (made.digest, place, "restrict", made.card)
    assert read.backbone == made.backbone
    assert torch.equal(read.table, made.table)
    write_tokens(tmp_path / TOKENS_FILE, read)
    assert (tmp_path / TOKENS_FILE).read_bytes() == first


def card(**changes: object) -> dict[str, object]:
    whole = {
        "format": TOKENS_FORMAT, "categories": ["a", "b"], "slots": 2, "place": "before", "sign": "restrict",
        "backbone": {"name": "x", "fingerprint": "f"},
    }  # fmt: skip
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "palette-adapter/1"}, "a card of the format palette-tokens/1, got 'palette-adapter/1'"),
        ({"categories": ["a"]}, "must agree, got another categories"),
        ({"slots": 3}, "must agree, got another slots"),
        ({"place": "behind"}, "must agree, got another place"),
        ({"sign": "forbid"}, "must agree, got another sign"),
        ({"backbone": None}, "must agree, got another backbone"),
    ],
)  # fmt: skip
def test_a_card_that_lies_is_refused(tmp_path, changes, message):
    path = tmp_path / TOKENS_FILE
    write_tensors(path, {"a": torch.ones(2, 4), "b": torch.zeros(2, 4)}, card(**changes))
    with pytest.raises(AdapterError, match=message):
        read_tokens(path)


def test_a_good_card_is_read(tmp_path):
    write_tensors(tmp_path / TOKENS_FILE, {"a": torch.ones(2, 4), "b": torch.zeros(2, 4)}, card())
    assert read_tokens(tmp_path).categories == ("a", "b")


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(AdapterError, match="must be a whole safetensors file, got No such file"):
        read_tokens(tmp_path)
    (tmp_path / TOKENS_FILE).write_bytes(b"no")
    with pytest.raises(AdapterError, match="must be a whole safetensors file"):
        read_tokens(tmp_path)
    write_tensors(
        tmp_path / TOKENS_FILE, {"a": torch.full((2, 4), torch.nan), "b": torch.zeros(2, 4)}, card()
    )
    with pytest.raises(AdapterError, match="must be finite, got NaN or infinity for a"):
        read_tokens(tmp_path)
    save_file({"a": torch.ones(2, 4)}, tmp_path / TOKENS_FILE)
    with pytest.raises(AdapterError, match="must have a card of the format palette-tokens/1, got None"):
        read_tokens(tmp_path)


def test_peft_gives_the_same_logits(backbone, tokens, prompts, tmp_path):
    made = tokens("before")
    export_peft(tmp_path, made, ["gamma", "beta"], backbone)
    assert load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"].shape == (6, 80)
    with mounted_tokens(backbone, made) as controlled:
        ours = next_token_logits(controlled, [controlled.prefixed(prompts[3], ["beta", "gamma"])])[0]
    theirs = PeftModel.from_pretrained(backbone.model, tmp_path)
    try:
        with torch.no_grad():
            found = theirs(input_ids=torch.tensor([prompts[3]])).logits[0, -1]
    finally:
        if hasattr(backbone.model, "peft_config"):
            del backbone.model.peft_config
    assert torch.allclose(found, ours, atol=1e-5)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["num_virtual_tokens"] == 6


@pytest.mark.parametrize(
    ("place", "active", "message"),
    [
        ("turn", ["beta"], "one prefix before everything, got tokens of the place 'turn'; train them with"),
        ("before", [], "one prefix before everything, got no active category; name active"),
        ("before", ["zeta"], "there are control tokens for, got zeta"),
    ],
)
def test_what_peft_cannot_say_is_refused(backbone, tokens, tmp_path, place, active, message):
    with pytest.raises(AdapterError, match=message):
        export_peft(tmp_path, tokens(place), active, backbone)
    assert not any(tmp_path.iterdir())
