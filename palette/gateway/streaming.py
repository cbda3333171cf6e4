"""Bodies on their way in, and replies on their way out: closed when they end, fail, or nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from palette.gateway.limits import Limits
from palette.gateway.refusals import Refused

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
