from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from palette.errors import JudgeError
from palette.judging.chat import KEY, UNREAD, ChatJudge
from palette.judging.judge import Label, Verdict
from tests.fixtures.endpoint import Endpoint, parrot, said

REPLY = "<think>secret</think>I can't help with that."


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(parrot) as found:
        yield found


def judge(endpoint: Endpoint, retries: int = 2) -> ChatJudge:
    return ChatJudge("model", endpoint.url, timeout=5.0, retries=retries, pause=0.001)


def test_the_request_is_what_such_endpoints_take(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "a key")
    assert judge(endpoint).verdicts(["why?"], [REPLY]) == [Verdict(Label.REFUSAL)]
    (body,) = endpoint.bodies
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.headers[0]["Authorization"] == "Bearer a key"
    assert (body["model"], body["temperature"]) == ("model", 0)
    asked = json.loads(body["messages"][1]["content"])
    assert asked == {"request": "why?", "reply": "I can't help with that."}


def test_without_a_key_none_is_sent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    judge(endpoint).verdicts(["why?"], ["so"])
    assert "Authorization" not in endpoint.headers[0]


def test_nothing_and_babble_are_not_asked_about(endpoint: Endpoint) -> None:
    found = judge(endpoint).verdicts(["a", "b"], ["", "no no no no no no no no"])
    assert [one.label for one in found] == [Label.UNJUDGED, Label.DEGENERATE]
    assert endpoint.bodies == []


@pytest.mark.parametrize("word", ["Refusal.", "the answer is partial", "", "full_compliance", None, 5])
def test_only_the_words_themselves_are_labels(word: object) -> None:
    with Endpoint(lambda body: (200, said(word))) as endpoint:
        assert judge(endpoint).verdicts(["?"], ["so"]) == [Verdict(Label.UNJUDGED, (UNREAD,))]


def test_a_busy_endpoint_is_asked_again() -> None:
    answers = iter([(503, b"busy"), (429, b"busy"), (200, said("partial"))])
    with Endpoint(lambda body: next(answers)) as endpoint:
        assert judge(endpoint).verdicts(["?"], ["so"]) == [Verdict(Label.PARTIAL)]
        assert len(endpoint.bodies) == 3


@pytest.mark.parametrize(
    ("answer", "got", "asked"),
    [
        ((503, b""), "status 503", 3),
        ((401, b"secret prompt"), "status 401", 1),
        ((200, b"secret prompt"), "another format", 1),
        ((200, b'{"choices": []}'), "another format", 1),
    ],
)
def test_what_is_no_answer_is_an_error_without_a_text(answer: Any, got: str, asked: int) -> None:
    with (
        Endpoint(lambda body: answer) as endpoint,
        pytest.raises(JudgeError, match=f"as OpenAI's chat completions do, got {got}") as error,
    ):
        judge(endpoint).verdicts(["secret prompt"], ["secret reply"])
    assert len(endpoint.bodies) == asked
    assert "secret" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_an_error(endpoint: Endpoint) -> None:
    gone = ChatJudge("model", "http://127.0.0.1:9/v1", timeout=1.0, retries=1, pause=0.001)
    with pytest.raises(JudgeError, match="got ConnectionRefusedError"):
        gone.verdicts(["?"], ["so"])
