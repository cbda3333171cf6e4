"""Calls of a gateway that runs in the test's own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from palette.gateway.admission import Services
from palette.gateway.app import create_app
from tests.gateway.fakes import World, key

METRICS_TOKEN = "figures-" + "f" * 32


@asynccontextmanager
async def calling(
    services: Services, metrics: str | None = METRICS_TOKEN
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that runs."""
    app = create_app(services, metrics)
    async with (
        app.inner.router.lifespan_context(app.inner),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        yield client


def shown(secret: str | None) -> dict[str, str]:
    return {} if secret is None else {"Authorization": f"Bearer {secret}"}


def chat(model: str = "medical", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "how much ?"}], **more}


class Caller:
    """Calls a gateway from a test that is not asynchronous, one gateway for each call."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(
        self,
        body: object,
        secret: str | None = key("hospital"),
        path: str = "/v1/chat/completions",
        **more: Any,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **shown(secret), **more.pop("headers", {})}
        return self.send("POST", path, content=content, headers=headers, **more)

    def get(self, path: str, secret: str | None = key("hospital"), **more: Any) -> httpx.Response:
        return self.send("GET", path, headers=shown(secret), **more)

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            async with calling(self.world.services()) as client:
                return await client.request(method, path, **more)

        return asyncio.run(once())


def events(text: str) -> list[Any]:
    """What server-sent events say; their end is the text that it is."""
    found = []
    for each in text.strip().split("\n\n"):
        assert each.startswith("data: ")
        said = each.removeprefix("data: ")
        found.append(said if said == "[DONE]" else json.loads(said))
    return found


def words(found: list[Any]) -> str:
    """What the chunks of a stream say together."""
    choices = [choice for each in found if isinstance(each, dict) for choice in each.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
