"""What is asked, read once: one strict parse gives one frozen value, and nothing else of a body goes further.

Fields are an allowlist of OpenAI's. A field that is not on it is refused and its name recorded, whatever a
backend behind would make of it: adapters by id or by list, scales, cache salts, steering, extra arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palette.fingerprints import canonical
from palette.gateway.limits import Limits
from palette.gateway.refusals import Refused
from palette.signing.envelope import strict_json

DEFINITIONS, REFERENCE = "$defs", "$ref"
NAME, STOPS, STOP, SHOWN = 256, 4, 128, 64
"""Characters of a model's name; stop texts, and characters of each; characters shown of a field's name."""

Text = Annotated[str, Field(strict=True)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Part(_Strict):
    """A part of a message; there are texts alone."""

    type: Literal["text"]
    text: Text


class _Message(_Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text | list[_Part]
    refusal: None = None
    """Replies have it, and clients send them back as they are."""

    @property
    def words(self) -> str:
        """What it says."""
        return self.content if isinstance(self.content, str) else "".join(one.text for one in self.content)


class _Streamed(_Strict):
    """How a stream is to be."""

    include_usage: bool | None = None


class _Common(_Strict):
    """What both kinds of requests may say."""

    model: Annotated[str, Field(min_length=1, max_length=NAME)]
    stream: bool | None = None
    stream_options: _Streamed | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stop: Text | list[Text] | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: Annotated[str, Field(max_length=NAME)] | None = None


class ChatBody(_Common):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class CompletionBody(_Common):
    """The body of ``/v1/completions``; its prompt is one user's message, which the chat template frames."""

    prompt: Text


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Asked:
    """What is asked, and all that is ever handed on of it."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    stated: bool = True
    """Whether so many were asked for; else it is what the gateway gives at most, and fewer may fit."""
    chat: bool = True
    stream: bool = False
    usage: bool = False
    n: int = 1
    temperature: float = 0.0
    """0, the likeliest token each time, is what certificates are measured with, and the default."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def said(self) -> str:
        """All that is said, as one text."""
        return canonical([[one.role, one.content] for one in self.messages])


def read(body: bytes, limits: Limits, *, chat: bool) -> Asked:
    """What a request's body asks.

    Raises:
        Refused: if it is not the JSON of such a request, says a thing twice, has a field that is not on the
            list, or asks for more than the limits.
    """
    content = _json(body)
    shape = ChatBody if chat else CompletionBody
    try:
        found = shape.model_validate(content)
    except ValidationError as error:
        raise _unfit(error) from None
    if isinstance(found, ChatBody):
        messages = tuple(Message(one.role, one.words) for one in found.messages)
        tokens = _one_of(found.max_tokens, found.max_completion_tokens)
    else:
        assert isinstance(found, CompletionBody)
        messages, tokens = (Message("user", found.prompt),), found.max_tokens
    stops = _stops(found.stop)
    asked = Asked(
        model=found.model,
        messages=messages,
        max_tokens=tokens or min(limits.default_tokens, limits.max_tokens),
        stated=tokens is not None,
        chat=chat,
        stream=bool(found.stream),
        usage=bool(found.stream_options and found.stream_options.include_usage),
        n=found.n or 1,
        temperature=found.temperature or 0.0,
        top_p=1.0 if found.top_p is None else found.top_p,
        stop=stops,
        seed=found.seed,
        presence_penalty=found.presence_penalty or 0.0,
        frequency_penalty=found.frequency_penalty or 0.0,
    )
    _within(asked, limits)
    return asked


def _json(body: bytes) -> object:
    try:
        content = strict_json(body.decode())
        if any(not _plain(text) for text in _texts(content)):
            raise ValueError
    except (ValueError, RecursionError):
        # What was sent is not quoted: it may be anything.
        raise Refused(
            400,
            "invalid_json",
            "a body must be one JSON object in UTF-8 in which no name stands twice, without NUL",
        ) from None
    return content


def _texts(content: object) -> Iterator[str]:
    """Every text of a JSON value, its names among them."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one


def _plain(text: str) -> bool:
    """Whether a text has no NUL, and no half of a pair that UTF-8 cannot say."""
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _unfit(error: ValidationError) -> Refused:
    found = error.errors(include_input=False, include_context=False, include_url=False)
    unknown = [_shown(each["loc"]) for each in found if each["type"] == "extra_forbidden"]
    if unknown:
        return Refused(
            400,
            "unknown_field",
            f"a request may have no field but OpenAI's that the gateway knows, got {', '.join(unknown[:8])}",
            remarks={"refused_fields": unknown[:16]},
        )
    first = found[0]
    return Refused(400, "invalid_value", f"{_shown(first['loc'])}: {first['msg'].lower()}")


def _shown(place: tuple[Any, ...]) -> str:
    """Where something stands, as far as that can be shown: escaped, and cut."""
    return ".".join(ascii(str(part))[1:-1][:SHOWN] for part in place[:4]) or "body"


def _one_of(first: int | None, second: int | None) -> int | None:
    if first is not None and second is not None and first != second:
        raise Refused(400, "invalid_value", "max_tokens and max_completion_tokens must not differ")
    return first if first is not None else second


def _stops(given: str | list[str] | None) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else tuple(given or ())
    if len(stops) > STOPS or any(not 0 < len(one) <= STOP for one in stops):
        raise Refused(
            400, "invalid_value", f"stop must be at most {STOPS} texts of 1 to {STOP} characters each"
        )
    return stops


def _within(asked: Asked, limits: Limits) -> None:
    """Passes if it asks for no more than the limits; and if the last word is the user's."""
    for what, got, most in (
        ("messages", len(asked.messages), limits.messages),
        ("n", asked.n, limits.choices),
        ("max_tokens", asked.max_tokens, limits.max_tokens),
    ):
        if got > most:
            raise Refused(400, "limit_exceeded", f"{what} must be at most {most}, got {min(got, 10**9)}")
    if asked.messages[-1].role != "user":
        # A reply that a client has begun is one that no certificate was measured on.
        raise Refused(400, "invalid_value", "the last message must be the user's")
    if asked.usage and not asked.stream:
        raise Refused(400, "invalid_value", "stream_options need stream")


def described(shape: type[BaseModel]) -> dict[str, Any]:
    """The part of a route's description that its body and its key are."""
    schema = shape.model_json_schema()
    schema = inlined(schema, schema.pop(DEFINITIONS, {}))
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "security": [{"key": []}],
    }


def inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema in which what others define stands where it is named: a route's has no place for them."""
    if isinstance(schema, list):
        return [inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if REFERENCE in schema:
        return inlined(definitions[schema[REFERENCE].rpartition("/")[2]], definitions)
    return {name: inlined(value, definitions) for name, value in schema.items()}
