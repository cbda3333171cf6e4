"""While a reply goes on: what ends, is revoked or goes away ends it, and the ledger says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from palette.gateway.limits import Limits
from tests.gateway.calls import calling, chat, events, shown, words
from tests.gateway.fakes import NOW, World, certified, grant, key

MANY = tuple(f"w{index} " for index in range(200))


def revoke_key(world: World) -> None:
    world.store.change(key("hospital"), revoked=NOW)


def delete_key(world: World) -> None:
    del world.store.keys[key("hospital")]


def revoke_grant(world: World) -> None:
    world.store.held = [replace(each, revoked=NOW) for each in world.store.held]


def delete_grant(world: World) -> None:
    world.store.held.clear()


def revoke_certificate(world: World) -> None:
    world.store.revoked[certified("medical").id] = NOW


def suspend(world: World) -> None:
    world.store.tenants["hospital"] = replace(world.store.tenants["hospital"], suspended=True)


def widen(world: World) -> None:
    world.store.held.append(grant("hospital", "legal"))


def break_store(world: World) -> None:
    world.store.broken = True


ENDINGS = {
    revoke_key: ("invalid_api_key", "credential_revoked"),
    delete_key: ("invalid_api_key", "no_tenant"),
    revoke_grant: ("no_grant", "no_grant"),
    delete_grant: ("no_grant", "no_grant"),
    revoke_certificate: ("no_certificate", "no_certificate"),
    suspend: ("tenant_suspended", "tenant_suspended"),
    widen: ("not_granted", "not_granted"),
    break_store: ("store_unavailable", "store_unavailable"),
}


@pytest.mark.parametrize("change", ENDINGS)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_revoked_ends_a_reply_that_goes_on(world, call, change: Callable[[World], None], stream):
    world.limits = Limits(watch_seconds=0.02)
    world.backend.words, world.backend.pause = MANY, 0.002
    world.backend.before = lambda index: change(world) if index == 20 else None
    reply = call(chat(stream=stream))
    code, recorded = ENDINGS[change]
    if stream:
        *said, last = events(reply.text)
        assert last["error"]["code"] == code
        assert "[DONE]" not in said
        assert 15 <= len(words(said).split()) < len(MANY) - 50
    else:
        assert reply.status_code in (401, 403, 503)
        assert reply.json()["error"]["code"] == code
    (end,) = world.ledger.of("reply")
    assert end.reason == recorded
    assert 0 < (end.completion_tokens or 0) < len(MANY)
    assert world.backend.ended[0] == "hospital", "the backend was told to stop"


def test_a_grant_that_expires_ends_the_stream_at_that_very_instant(world, call):
    world.store.held = [grant("hospital", "medical", expires=NOW.replace(hour=13))]
    world.backend.before = lambda index: world.clock.on(hours=1) if index == 3 else None
    *said, last = events(call(chat(stream=True)).text)
    assert last["error"]["code"] == "expired"
    assert len(words(said).split()) == 3
    assert world.ledger.of("reply")[0].reason == "expired"


def test_a_stream_that_pauses_is_watched_too(world, call):
    world.limits = Limits(watch_seconds=0.02)
    world.backend.words, world.backend.pause = ("one ",), 3
    world.store.held = [grant("hospital", "medical", expires=NOW.replace(hour=13))]

    async def late() -> Any:
        async with calling(world.services()) as client:
            asking = asyncio.create_task(
                client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
            )
            await asyncio.sleep(0.1)
            revoke_key(world)
            return await asyncio.wait_for(asking, 1)

    assert asyncio.run(late()).status_code == 401


def test_a_clock_that_is_set_back_revives_nothing(world):
    world.store.held = [grant("hospital", "medical", expires=NOW.replace(hour=13))]

    async def asked() -> list[int]:
        async with calling(world.services()) as client:
            found = []
            for hours in (0, 2, -2):
                world.clock.on(hours=hours)
                reply = await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
                found.append(reply.status_code)
            return found

    assert asyncio.run(asked()) == [200, 403, 403]


def test_whoever_goes_away_is_in_the_ledger_and_the_backend_stops(world):
    """A client that closes its connection, in the server's own words."""
    from palette.gateway.app import create_app

    world.backend.words, world.backend.pause = MANY, 0.002

    async def leave() -> None:
        app = create_app(world.services())
        body = b'{"model": "medical", "stream": true, "messages": [{"role": "user", "content": "?"}]}'
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [
                (b"authorization", f"Bearer {key('hospital')}".encode()),
                (b"content-type", b"application/json"),
            ],
            "client": ("127.0.0.1", 1),
        }
        sent: list[Any] = []
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            if (message := next(asked, None)) is not None:
                return message
            while len(sent) < 10:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.inner.router.lifespan_context(app.inner):
            await app(scope, receive, send)

    asyncio.run(leave())
    (end,) = world.ledger.of("reply")
    assert (end.status, end.reason) == (499, "client_gone")
    assert 0 < (end.completion_tokens or 0) < len(MANY)
    assert world.backend.ended == ["hospital", "closed"]
