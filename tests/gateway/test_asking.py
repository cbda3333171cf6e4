"""The one strict parse: whatever a body is, it is one value of known fields, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.gateway.asking import Asked, ChatBody, CompletionBody, Message, read
from palette.gateway.limits import Limits
from palette.gateway.refusals import Refused
from tests.gateway.calls import chat

LIMITS = Limits()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = sorted({*ChatBody.model_fields, *CompletionBody.model_fields})


def parsed(content: object, *, chat: bool = True) -> Asked:
    return read(json.dumps(content).encode(), LIMITS, chat=chat)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_value_or_a_refusal(body, is_chat):
    try:
        found = read(body, LIMITS, chat=is_chat)
    except Refused as refused:
        assert refused.status == 400
        assert refused.message.isprintable()
    else:
        assert isinstance(found, Asked)


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), JSON, max_size=4))
@settings(max_examples=60, deadline=None)
def test_whatever_is_added_to_a_good_body_it_is_a_value_of_known_fields_or_a_refusal(more):
    content = {**chat(), **more}
    try:
        found = parsed(content)
    except Refused as refused:
        assert refused.status == 400
    else:
        assert set(more) <= set(ChatBody.model_fields)
        assert found.model == content["model"]
        assert found.max_tokens <= LIMITS.max_tokens
        assert found.n <= LIMITS.choices
        assert found.messages[-1].role == "user"
        assert 0 <= found.temperature <= 2


def test_what_openais_clients_send_is_read():
    found = parsed(
        {
            "model": "medical",
            "messages": [
                {"role": "system", "content": "be brief"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "how "}, {"type": "text", "text": "much"}],
                },
                {"role": "assistant", "content": "two", "refusal": None},
                {"role": "user", "content": "and then ?"},
            ],
            "max_completion_tokens": 20,
            "temperature": 1,
            "top_p": None,
            "stop": ["a", "b"],
            "seed": -3,
            "user": "dr-jones",
            "stream": True,
            "stream_options": {"include_usage": True},
            "n": 2,
        }
    )
    assert found.messages[1] == Message("user", "how much")
    assert (found.max_tokens, found.n, found.seed, found.stop) == (20, 2, -3, ("a", "b"))
    assert (found.stream, found.usage, found.temperature, found.top_p) == (True, True, 1.0, 1.0)
    assert not hasattr(found, "user"), "whose it is for a client stays with the client"


def test_what_a_request_does_not_say_is_as_certificates_are_measured():
    found = parsed(chat())
    assert (found.temperature, found.n, found.max_tokens) == (0.0, 1, LIMITS.default_tokens)


BAD: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "a role of its own": {"messages": [{"role": "developer", "content": "x"}]},
    "a tool": {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
    "a name": {"messages": [{"role": "user", "content": "x", "name": "y"}]},
    "an image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    "nothing said": {"messages": [{"role": "user", "content": None}]},
    "a reply that is begun": {"messages": [{"role": "assistant", "content": "Sure"}]},
    "a list of models": {"model": ["medical"]},
    "no model": {"model": ""},
    "a long model": {"model": "m" * 300},
    "a number as text": {"max_tokens": "5"},
    "a truth as number": {"n": True},
    "a fraction": {"max_tokens": 1.5},
    "heat": {"temperature": 2.1},
    "cold": {"temperature": -0.1},
    "nothing of the mass": {"top_p": 0},
    "many stops": {"stop": ["a"] * 5},
    "an empty stop": {"stop": ""},
    "a huge seed": {"seed": 2**63},
    "a huge n": {"n": 10**30},
    "two limits": {"max_tokens": 5, "max_completion_tokens": 6},
    "usage of no stream": {"stream_options": {"include_usage": True}},
    "more of a stream": {"stream": True, "stream_options": {"chunk": 1}},
    "a stream as text": {"stream": "true"},
}


@pytest.mark.parametrize("what", BAD)
def test_a_body_is_refused_that_has(what):
    with pytest.raises(Refused) as refused:
        parsed(chat(**BAD[what]))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{} {}",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": ' + b"9" * 5000 + b"}",
        '\ufeff{"model": "medical"}'.encode(),
        b'{"model": Infinity}',
    ],
)
def test_what_is_no_object_is_refused_without_being_quoted(body):
    with pytest.raises(Refused) as refused:
        read(body, LIMITS, chat=True)
    assert refused.value.status == 400
    assert len(refused.value.message) < 400


def test_a_prompt_of_many_is_refused():
    for prompt in (["a", "b"], [1, 2], [[1]], None):
        with pytest.raises(Refused):
            parsed({"model": "medical", "prompt": prompt}, chat=False)


def test_1e999_is_no_number():
    body = json.dumps(chat()).replace('"model"', '"temperature": 1e999, "model"').encode()
    with pytest.raises(Refused):
        read(body, LIMITS, chat=True)
