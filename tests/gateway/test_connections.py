"""Connections to one server: as many as there are requests at once, used again, and none lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from palette.gateway import connections
from palette.gateway.connections import Connections

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def answering(seen: list[int], *, closing: bool = False, pause: float = 0.0) -> Handle:
    """A server that counts connections and answers each request on them."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(pause)
                writer.write(HEAD + b"two.")
                await writer.drain()
                if closing:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return handle


def run(handle: Handle, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def both() -> None:
        async with serving(handle) as url, httpx.AsyncClient(base_url=url, transport=Connections()) as client:
            await ask(client)

    asyncio.run(both())


@pytest.mark.parametrize(("at_once", "closing", "connections"), [(1, False, 1), (3, False, 3), (1, True, 4)])
def test_a_connection_is_used_again_and_one_that_was_closed_is_not(at_once, closing, connections):
    seen: list[int] = []

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            replies = await asyncio.gather(*(client.get("") for _ in range(at_once)))
            assert [each.text for each in replies] == ["two."] * at_once
            await asyncio.sleep(0.02)

    run(answering(seen, closing=closing, pause=0.01), ask)
    assert len(seen) == connections


def test_who_goes_away_in_mid_reply_leaves_nothing_behind_for_the_next():
    held: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        held.append(writer)
        writer.write(HEAD + (b"first"[:2] if len(held) == 1 else b"next"))
        await writer.drain()

    async def ask(client: httpx.AsyncClient) -> None:
        task = asyncio.create_task(client.get(""))
        while not held:
            await asyncio.sleep(0.01)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        assert (await asyncio.wait_for(client.get(""), 5)).text == "next"
        for each in held:
            each.close()

    run(handle, ask)
    assert len(held) == 2


def test_connections_of_a_crowd_are_closed_once_they_stand_idle(monkeypatch):
    async def both() -> None:
        transport = connections.Connections()
        async with (
            serving(answering([], pause=0.01)) as url,
            httpx.AsyncClient(base_url=url, transport=transport) as client,
        ):
            await asyncio.gather(*(client.get("") for _ in range(5)))
            assert len(transport._free) == 5
            monkeypatch.setattr(connections, "KEPT", 0.0)
            await client.get("")
            assert len(transport._free) == 1

    asyncio.run(both())


def test_where_nobody_listens_every_request_says_so():
    async def ask() -> None:
        async with serving(answering([])) as url:
            pass
        async with httpx.AsyncClient(base_url=url, transport=Connections()) as client:
            for _ in range(3):
                with pytest.raises(httpx.ConnectError):
                    await client.get("")

    asyncio.run(ask())
