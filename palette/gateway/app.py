"""The routes of a gateway, and the outermost layer around them.

Each route asks who is there, but for those that ``PUBLIC`` names; there are no more. The layer counts every
request, and turns a bug into a plain 500: what its exception says may quote what was sent, and neither a
client nor a log is shown it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from traceback import extract_tb
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from palette.gateway import asking, wire
from palette.gateway.admin import Desk, Page
from palette.gateway.admission import Admission, Services
from palette.gateway.backend import Piece
from palette.gateway.identity import bearer
from palette.gateway.monitor import Monitor
from palette.gateway.refusals import Refused
from palette.gateway.replying import Replies
from palette.gateway.visits import Admitted, Visit
from palette.gateway.wire import EventStream, body_of, chained, until_gone

PUBLIC = ("/health",)
"""Routes that ask nobody who they are, and tell nothing."""
METRICS = "/metrics"
"""The one route with a key of its own; a tenant's does not open it."""


def create_app(services: Services, metrics_token: str | None = None, desk: Desk | None = None) -> Surface:
    """The gateway as an ASGI application; without a token there are no metrics, without a desk no page."""
    monitor = Monitor()
    admission = Admission(services, monitor)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await admission.open()
        try:
            yield
        finally:
            await admission.close()

    # No page that describes the routes is served: it would be one that asks nobody who they are.
    app = FastAPI(
        title="Palette gateway",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    Routes(admission).add(app)
    if desk is not None:
        Page(admission, desk).add(app)
    if metrics_token is not None:
        _add_metrics(app, admission, metrics_token)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _missing)
    return Surface(app, admission)


class Routes:
    """What tenants call."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._replies = admission, Replies(admission)
        self._limits = admission.services.limits

    def add(self, app: FastAPI) -> None:
        """Adds the routes."""
        app.post("/v1/chat/completions", openapi_extra=asking.described(asking.ChatBody))(self.chat)
        app.post("/v1/completions", openapi_extra=asking.described(asking.CompletionBody))(self.complete)
        app.get("/v1/models")(self.models)
        app.get("/v1/models/{name}")(self.model)
        app.get("/health")(self.health)

    async def health(self) -> dict[str, str]:
        """Whether the gateway runs; of what it serves nothing."""
        return {"status": "ok"}

    async def models(self, request: Request) -> dict[str, Any]:
        """The one model that the caller may ask for, if it may ask for one."""
        name = await self._own_model(request)
        return wire.listed([name] if name else [])

    async def model(self, request: Request, name: str) -> dict[str, Any]:
        """The caller's own model; nothing else exists for it."""
        own = await self._own_model(request)
        if own is None or name != own:
            raise Refused(404, "model_not_found", "there is no such model for this key")
        return wire.model(own)

    async def chat(self, request: Request) -> Response:
        """A reply to a conversation."""
        return await self._answer(request, chat=True)

    async def complete(self, request: Request) -> Response:
        """A reply to one text, which the chat template frames as a user's."""
        return await self._answer(request, chat=False)

    async def _own_model(self, request: Request) -> str | None:
        visit = await self._admission.identified(_visit(request))
        if refused := _query(request):
            await self._admission.refuse(visit, refused)
        return await self._admission.model(visit)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        begun = asyncio.get_running_loop().time()
        visit = await self._admission.identified(_visit(request))
        try:
            if refused := _query(request) or _type(request):
                raise refused
            asked = asking.read(await body_of(request, self._limits), self._limits, chat=chat)
        except Refused as refused:
            await self._admission.refuse(visit, refused)
        admitted = await self._admission.admit(visit, asked)
        self._admission.monitor.admitted(asyncio.get_running_loop().time() - begun)
        return await self._reply(request, admitted)

    async def _reply(self, request: Request, admitted: Admitted) -> Response:
        form = wire.Form(admitted)
        headers = {"X-Request-Id": admitted.visit.id, "Cache-Control": "no-store"}
        if not admitted.asked.stream:
            async with aclosing(self._replies.to(admitted)) as pieces:
                content = await until_gone(request.receive, form.whole(pieces))
            return JSONResponse(content, headers=headers)
        async with AsyncExitStack() as stack:
            pieces = await stack.enter_async_context(aclosing(self._replies.to(admitted)))
            # What goes wrong before the first piece has a status of its own.
            first = await anext(pieces, None)
            whole: AsyncIterator[Piece] = chained(first, pieces)
            source = stack.pop_all()
            return EventStream(form.events(whole), source, headers, self._limits.piece_seconds)


def _visit(request: Request) -> Visit:
    address = request.client.host if request.client else "unknown"
    return Visit(bearer(request.scope["headers"]), address)


def _query(request: Request) -> Refused | None:
    """The refusal of a query string: what is asked stands in the body alone."""
    if not request.scope["query_string"]:
        return None
    names = [ascii(name)[1:-1][:64] for name in request.query_params][:8]
    message = "a request may have no query parameters"
    return Refused(400, "query_refused", message, remarks={"refused_parameters": names})


def _type(request: Request) -> Refused | None:
    """The refusal of a body that is no plain JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or request.headers.get("content-encoding", "identity") != "identity":
        return Refused(415, "unsupported_media_type", "a body must be plain application/json")
    return None


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, {**error.headers, "Cache-Control": "no-store"})


async def _missing(request: Request, error: Exception) -> Response:
    """A path or a method that is not there, in OpenAI's shape; a path is not repeated."""
    assert isinstance(error, HTTPException)
    reason = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    told = {404: "there is nothing here", 405: "there is nothing here for this method"}
    refused = Refused(error.status_code, reason, told.get(error.status_code, "the request is malformed"))
    return JSONResponse(refused.body, error.status_code, {**(error.headers or {}), **refused.headers})


def _add_metrics(app: FastAPI, admission: Admission, token: str) -> None:
    """Adds the figures, for whoever has the token that is theirs alone, wherever it calls from."""

    async def metrics(request: Request) -> Response:
        shown = bearer(request.scope["headers"])
        if shown is None or not hmac.compare_digest(shown.encode(), token.encode()):
            raise Refused(401, "invalid_api_key", "the metrics have a token of their own")
        page = admission.monitor.page(admission.quotas.open, len(admission.services.faults()))
        return Response(page, media_type="text/plain; version=0.0.4")

    app.get(METRICS)(metrics)


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
