"""The outermost layer: counts every request, and turns a bug into a plain 500 that tells nothing.

What a bug's exception says may quote what was sent; neither a client nor a log is shown it.
"""

from __future__ import annotations

import json
import logging
from traceback import extract_tb
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from palette.gateway.admission import Admission
from palette.gateway.refusals import Refused

LOGGER = logging.getLogger("palette.gateway")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""What every answer says that says nothing else of it."""


class Surface:
    """An application with nothing of its inside showing."""

    def __init__(self, app: FastAPI, admission: Admission) -> None:
        self.inner, self.admission, self.monitor = app, admission, admission.monitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection's scope."""
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":
            # No socket is served; a server that gets no answer refuses it.
            return
        status = 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", ())]
                named = {name for name, _ in given}
                message["headers"] = [*given, *(each for each in HEADERS if each[0] not in named)]
            await send(message)

        try:
            await self.inner(scope, receive, told)
        except Exception as error:
            LOGGER.error("%s at %s", type(error).__name__, _places(error))
            if not status:
                await _plain(Refused(500, "internal_error", "the gateway failed; nothing was opened"), told)
        finally:
            self.monitor.requested(_route(scope), status)


def _places(error: BaseException) -> str:
    """Where an exception came from, without what it says."""
    return " < ".join(f"{each.name}:{each.lineno}" for each in reversed(extract_tb(error.__traceback__)))


def _route(scope: Scope) -> str:
    """The route's own path; one word for all that there is none for."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "none"))


async def _plain(refused: Refused, send: Send) -> None:
    body = json.dumps(refused.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
