"""What goes over the wire: bodies on their way in; replies in OpenAI's shapes, whole or as events, out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from time import time
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from palette.gateway.backend import Piece
from palette.gateway.limits import Limits
from palette.gateway.refusals import Refused
from palette.gateway.visits import Admitted

DONE = b"data: [DONE]\n\n"


def event(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def listed(names: Iterable[str]) -> dict[str, Any]:
    """A list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    """One model: its name, and nothing of what it is made of."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "palette"}


class Form:
    """The frame of one request's replies."""

    def __init__(self, admitted: Admitted) -> None:
        self._asked = admitted.asked
        kind = "chat.completion" if self._asked.chat else "text_completion"
        prefix = "chatcmpl-" if self._asked.chat else "cmpl-"
        chunk = ".chunk" if self._asked.chat and self._asked.stream else ""
        # The name is the tenant's authorisation: what it asked for, which is the only one that it has.
        self._frame = {
            "id": prefix + admitted.visit.id,
            "object": kind + chunk,
            "created": int(time()),
            "model": admitted.decision.name,
        }
        self._tokens: dict[int, int] = {}
        self._prompt = 0

    async def whole(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """All replies at once."""
        texts: dict[int, str] = {}
        ends: dict[int, str] = {}
        async for piece in pieces:
            self._count(piece)
            texts[piece.index] = texts.get(piece.index, "") + piece.text
            if piece.finish:
                ends[piece.index] = piece.finish
        choices = [
            {
                "index": index,
                **self._said(texts[index]),
                "logprobs": None,
                "finish_reason": ends.get(index, "stop"),
            }
            for index in sorted(texts)
        ]
        return {**self._frame, "choices": choices, "usage": self._usage()}

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        """The replies as events; what ends them early is the last event."""
        begun: set[int] = set()
        try:
            async for piece in pieces:
                self._count(piece)
                if self._asked.chat and piece.index not in begun:
                    yield event(self._chunk(piece.index, {"delta": {"role": "assistant", "content": ""}}))
                begun.add(piece.index)
                if piece.text:
                    yield event(self._chunk(piece.index, self._new(piece.text)))
                if piece.finish:
                    yield event(self._chunk(piece.index, self._new(""), piece.finish))
        except Refused as refused:
            yield event(refused.body)
            return
        if self._asked.usage:
            yield event({**self._frame, "choices": [], "usage": self._usage()})
        yield DONE

    def _said(self, text: str) -> dict[str, Any]:
        if self._asked.chat:
            return {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"text": text}

    def _new(self, text: str) -> dict[str, Any]:
        if self._asked.chat:
            return {"delta": {"content": text} if text else {}}
        return {"text": text}

    def _chunk(self, index: int, new: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": index, **new, "logprobs": None, "finish_reason": finish}
        return {**self._frame, "choices": [choice]}

    def _count(self, piece: Piece) -> None:
        self._tokens[piece.index] = piece.tokens
        self._prompt = max(self._prompt, piece.prompt)

    def _usage(self) -> dict[str, int]:
        said = sum(self._tokens.values())
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": said,
            "total_tokens": self._prompt + said,
        }


T = TypeVar("T")


async def body_of(request: Request, limits: Limits) -> bytes:
    """The body of a request, as far as it may be long.

    Raises:
        Refused: if it is longer, or does not arrive.
    """
    most = limits.body_bytes
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated[:20]) > most:
        raise Refused(413, "body_too_large", f"a body must have at most {most} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Refused(413, "body_too_large", f"a body must have at most {most} bytes")
    except TimeoutError:
        raise Refused(408, "body_too_slow", "the body did not arrive in time") from None
    return bytes(body)


async def gone(receive: Receive) -> None:
    """Ends when the client does not listen any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled when the client has gone.

    Raises:
        Refused: if the client has gone, for nobody to read.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Refused(499, "client_gone", "the client has gone")
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def chained(first: T | None, rest: AsyncGenerator[T]) -> AsyncIterator[T]:
    """The first one, and the rest; nothing where there is no first one."""
    if first is not None:
        yield first
        async for one in rest:
            yield one


class EventStream(Response):
    """Server-sent events; what they come from is closed whatever happens."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], source: AsyncExitStack, headers: Mapping[str, str], seconds: float
    ) -> None:
        """``seconds`` is how long a client may take to read what was sent."""
        # The length is not known.
        super().__init__(None, headers={**headers, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._source, self._seconds = events, source, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events for as long as somebody listens."""
        async with self._source:
            try:
                await until_gone(receive, self._send(send))
            except (Refused, TimeoutError):
                # The client has gone, or does not read.
                return

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for one in self._events:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.body", "body": one, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
