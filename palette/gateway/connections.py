"""Connections to one server, each of which asks for itself.

A pool of many looks at every one of them with every request, and again behind it: with fifty, most of what a
request takes goes there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic

import httpx

KEPT = 2.0
"""Seconds for which a connection is kept without a request; servers close theirs after five."""


class Connections(httpx.AsyncBaseTransport):
    """As many connections as there are requests at once; the one that was used last is used first.

    One that was not used for ``KEPT`` is closed when the next one is free again.
    """

    def __init__(self) -> None:
        # One for all of them, since to read the authorities takes longer than a request.
        self._trusted = httpx.create_ssl_context(trust_env=False)
        self._free: deque[tuple[httpx.AsyncHTTPTransport, float]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response; its connection is free again once that is closed.

        Raises:
            httpx.TransportError: if there is none.
        """
        single = self._free.pop()[0] if self._free else self._new()
        try:
            response = await single.handle_async_request(request)
        except BaseException:
            await self._release(single)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Closing(response.stream, partial(self._release, single))
        return response

    async def aclose(self) -> None:
        """Closes those that are free."""
        while self._free:
            await self._free.pop()[0].aclose()

    async def _release(self, single: httpx.AsyncHTTPTransport) -> None:
        now = monotonic()
        self._free.append((single, now))
        # In the order of their last use, since the last one is taken first.
        while self._free[0][1] < now - KEPT:
            idle, _ = self._free.popleft()
            await idle.aclose()

    def _new(self) -> httpx.AsyncHTTPTransport:
        one = httpx.Limits(max_connections=1, keepalive_expiry=KEPT)
        return httpx.AsyncHTTPTransport(verify=self._trusted, trust_env=False, limits=one)


class _Closing(httpx.AsyncByteStream):
    """A stream, and what is to be done once it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, closed: Callable[[], Awaitable[None]]) -> None:
        self._stream, self._closed = stream, closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._closed()
