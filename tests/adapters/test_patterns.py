"""Expressions for module paths: PEFT's own matching is the law, and none takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from palette.adapters.patterns import FORMS, LONGEST, Pattern
from palette.errors import AdapterError

NAMES = (
    "model.layers.0.self_attn.q_proj", "model.layers.11.self_attn.q_proj", "model.layers.1.mlp.up_proj",
    "layers.0.q", "model_layers.0.q", "lm_head", "q", "my_q", "a.b-c", "h.0.attn.c_attn", "h10.attn.c_attn",
)  # fmt: skip
PIECES = (
    "q", "q_proj", ".", r"\.", ".*", "^", "$", r"\d+", "layers", "[01]", "(q|k)", "_proj", "model", "|",
    "(?:a|mlp)", ".+?", "self_attn", "0", "1", "-", "(?!.*mlp)", "{1,2}", "?", "(?i:Q)", r"\b", "h", "up",
)  # fmt: skip


def theirs(keys: list[str], name: str) -> int | None:
    found = get_pattern_key(keys, name)
    return keys.index(found) if found in keys and re.match(rf"(.*\.)?({found})$", name) else None


def sound(key: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({key})$")
    except re.error:
        return False
    return True


keys = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join).filter(sound)
suffixes = st.sampled_from(NAMES).flatmap(
    lambda name: st.integers(0, len(name) - 1).map(lambda start: name[start:].replace(".", r"\.", start % 2))
)


@settings(max_examples=400, deadline=None)
@given(keys=st.lists(keys | suffixes, unique=True, max_size=5), name=st.sampled_from(NAMES))
@example(keys=["layers.0.q"], name="model_layers.0.q")
@example(keys=["layers.1.mlp.up_proj", "h1..attn.c_attn"], name="h10.attn.c_attn")
@example(keys=["a|q", "q$"], name="my_q")
@example(keys=[r"layers\.(0|11)\..*q_proj", "q_proj"], name=NAMES[1])
def test_the_first_key_that_peft_matches_decides(keys: list[str], name: str) -> None:
    pattern = Pattern("alpha_pattern", {key: float(place) for place, key in enumerate(keys)})
    assert pattern.first(name) == theirs(keys, name)
    assert pattern.first(name) == pattern.first(name)


@pytest.mark.parametrize("key", ["(a|aa)+c", "(?:(?:a|aa)(?:a|aa)?)+[xy]"])
def test_a_key_that_takes_exponential_time_is_refused_at_once(key: str) -> None:
    before = time.thread_time()
    with pytest.raises(AdapterError, match="takes too long on aaaa"):
        Pattern("alpha_pattern", {key: 1.0}, "here").first("a" * 60 + "-")
    assert time.thread_time() - before < 2.0


@pytest.mark.parametrize("key", ["(a+)+$", "(a|a)*b", r"(\w+\.?)+!", "(?:a*)*c", "(a|b|ab)*c"])
def test_a_key_that_would_take_re_hours_is_answered_at_once(key: str) -> None:
    before = time.thread_time()
    assert Pattern("alpha_pattern", {key: 1.0}, "here").first("a" * 60 + "-") is None
    assert time.thread_time() - before < 2.0


@pytest.mark.parametrize(
    "key",
    [
        "(",
        "[",
        "*",
        "a{2",
        "(?P<x",
        "[[a]]",
        "x{e<=1}",
        "(?i)q",
        r"\p{L}",
        "((a{1000}){1000}){1000}",
        "(?:a{0,999}){9}",
        "(" * 3000,
        "a" * LONGEST + "+",
    ],
)
def test_what_is_no_expression_of_pefts_is_refused(key: str) -> None:
    with pytest.raises(
        AdapterError, match="the keys of rank_pattern must be module names or regular"
    ) as caught:
        Pattern("rank_pattern", {"fine": 2.0, key: 1.0}, "adapter_config.json")
    assert str(caught.value).endswith("; write the names out (adapter_config.json)")
    assert str(caught.value).isprintable()


def test_many_names_cost_no_more_than_one_and_too_many_expressions_are_refused() -> None:
    pattern = Pattern("alpha_pattern", {f"model.layers.{one}.q": one for one in range(50_000)})
    before = time.perf_counter()
    assert [pattern.first(f"model.layers.{one}.q") for one in range(1000)] == list(range(1000))
    assert time.perf_counter() - before < 2.0
    with pytest.raises(AdapterError, match=f"got more than {FORMS} kinds of them"):
        Pattern("alpha_pattern", {f"{'a' * one}+": 1.0 for one in range(1, FORMS + 2)})


def test_without_keys_nothing_is_matched() -> None:
    assert Pattern().first("q") is None
