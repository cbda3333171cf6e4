"""What an adapter_config.json may say, and the scale it gives."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig

from palette.adapters.configuration import (
    HONOURED,
    IMMATERIAL,
    JSON_LIMIT,
    NEUTRAL_FIELDS,
    parse,
    pattern,
    quoted,
    strict_json,
)
from palette.errors import AdapterError

WHERE = Path("adapter_config.json")
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def test_the_defaults_of_peft_are_plain_lora() -> None:
    config = LoraConfig(target_modules=["q_proj"]).to_dict()
    fields = {key: list(value) if isinstance(value, set) else value for key, value in config.items()}
    parsed = parse({**fields, "peft_type": "LORA"}, WHERE)
    assert (parsed.rank, parsed.alpha, parsed.rslora, parsed.base) == (8, 8.0, False, None)
    assert not set(HONOURED) & set(IMMATERIAL) & set(NEUTRAL_FIELDS)


def test_scale_is_alpha_over_rank_or_over_its_root() -> None:
    assert parse(PLAIN, WHERE).scale("x", 4) == 2.0
    assert parse({**PLAIN, "use_rslora": True}, WHERE).scale("x", 4) == 4.0
    varying = parse({**PLAIN, "rank_pattern": {"x": 16}}, WHERE)
    assert varying.ranks_vary
    assert varying.scale("x", 16) == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "adapter_config.json must be PEFT's configuration of a LoRA, got no peft_type"),
        ({"r": 4}, "must be PEFT's configuration of a LoRA, got no peft_type (adapter_config"),
        ({"peft_type": "IA3"}, "plain LoRA, got peft_type = 'IA3', another kind of adapter; train"),
        ({"bias": "all"}, "got bias = 'all', biases of the backbone, which ΔW cannot hold; train"),
        ({"lora_bias": True}, "got lora_bias = True, a bias on lora_B, which ΔW cannot hold"),
        ({"modules_to_save": ["lm_head"]}, "['lm_head'], whole modules trained beside LoRA"),
        ({"trainable_token_indices": [1]}, "got trainable_token_indices = [1], trained token emb"),
        ({"target_parameters": "w"}, "target_parameters must be a list of names, got 'w' (adapter"),
        ({"layer_replication": [[0, 2]]}, "= [[0, 2]], a backbone with replicated layers"),
        ({"init_lora_weights": "pissa"}, "got init_lora_weights = 'pissa', an initialisation that"),
        ({"bias": 0}, "got bias = 0, biases of the backbone"),
        ({"use_dora": 0}, "use_dora must be true or false, got 0 (adapter_config.json)"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false, got 'yes' (adapter_config.json)"),
        ({"r": 10**400}, "r must be a finite number, got 1000"),
        (
            {"new\x1bthing": 3},
            "got new\\x1bthing = 3, a field that Palette does not know how to hono",
        ),
        ({"r": None}, "r must be a finite number, got none (adapter_config.json)"),
        ({"r": True}, "r must be a finite number, got True (adapter_config.json)"),
        ({"r": 0}, "r must be a whole number of at least 1, got 0.0 (adapter_config.json)"),
        ({"r": 2.5}, "r must be a whole number of at least 1, got 2.5 (adapter_config.json)"),
        ({"lora_alpha": math.inf}, "lora_alpha must be a finite number, got inf (adapter_config"),
    ],
)
def test_what_is_not_plain_lora_is_refused_with_the_reason(fields: object, message: str) -> None:
    whole = {**PLAIN, **fields} if isinstance(fields, dict) and fields != {"r": 4} else fields
    with pytest.raises(AdapterError) as caught:
        parse(whole, WHERE)
    assert message in str(caught.value)


def test_unset_unknown_fields_pass() -> None:
    assert parse({**PLAIN, "of_a_later_peft": None, "another": False}, WHERE).rank == 4


def test_the_first_key_that_fits_decides() -> None:
    fields = {**PLAIN, "alpha_pattern": {"0.q_proj": 3, "q_proj": 5, "v_proj": 7, "model.k": 9}}
    parsed = parse(fields, WHERE)
    names = ("layers.0.q_proj", "layers.1.q_proj", "v_proj", "my_v_proj", "model.k", "o")
    assert [parsed.scale(name, 1) for name in names] == [3, 5, 7, 8, 9, 8]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "alpha_pattern must be a table of numbers by module names, got [1]; copy or train the"),
        ({"[": 1}, "the keys of alpha_pattern must be module names or regular expressions, as PEFT reads"),
        ({"q": "x"}, "q must be a finite number, got 'x' (adapter_config.json)"),
        ({"q": 10**400}, "q must be a finite number, got 1000"),
    ],
)
def test_other_patterns_are_refused(value: object, message: str) -> None:
    with pytest.raises(AdapterError) as caught:
        pattern({"alpha_pattern": value}, "alpha_pattern", WHERE)
    assert message in str(caught.value)


def test_ranks_that_stand_in_the_shapes_are_not_matched() -> None:
    """`(a+)+$` on forty letters would take hours."""
    parsed = parse({**PLAIN, "rank_pattern": {"(a+)+$": 4}, "target_modules": "(a+)+$"}, WHERE)
    assert parsed.scale("a" * 40 + "b", 4) == 2.0


# JSON from strangers: what is ambiguous, endless or unwritable is refused, within bounds.


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=values)
def test_ordinary_json_is_read(value: object) -> None:
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert strict_json(text) == value
    assert strict_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":1,"a":2}', "a key that stands twice"),
        ("[NaN]", "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        ("[1e999]", "the number 1e999"),
        ("9" * 5000, "digits"),
        ("[" * 15_000, "JSON deeper than 32 levels"),
        ("[" * 40 + "]" * 40, "JSON deeper than 32 levels"),
        ("[" + "[]," * 30_000 + "1]", "more than 20000 lists and tables"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"\\ud800":1}', "surrogates not allowed"),
        (b"\xff", "can't decode"),
        (" " * (JSON_LIMIT + 1), "bytes of JSON, more than 4194304"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_refused_is_refused_quickly(text: str | bytes, reason: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ValueError, match=reason):
        strict_json(text)
    assert time.perf_counter() - before < 1.0


@given(value=values | st.just("\x1b[2J\n") | st.just(10**4000))
def test_what_is_shown_is_short_and_one_line_of_ascii(value: object) -> None:
    text = quoted(value, 50)
    assert len(text) <= 50
    assert text.isascii()
    assert text.isprintable()


def test_what_is_shown_is_what_it_is() -> None:
    assert quoted("a") == "'a'"
    assert quoted(["lm_head", True]) == "['lm_head', True]"
    assert quoted("\u202e") == r"'\u202e'"
