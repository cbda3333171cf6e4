"""The operator's page at /admin: who may ask for what, by which evidence, what was decided, and a playground.

It is not there unless an operator has a key (``palette operator add``). It has no script: what it shows is
made here, and every form says a word that only this visitor's page knows, to the origin that it came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import FastAPI, Request, Response
from jinja2 import ChoiceLoader, PackageLoader

from palette.authorisation import Certified
from palette.errors import PaletteError
from palette.gateway.admission import Admission
from palette.gateway.auditing import recent
from palette.gateway.ledger import Event
from palette.gateway.limits import Windows
from palette.gateway.operators import OperatorKey, Sessions, known_operator, operators
from palette.gateway.playground import Playground, Sides
from palette.gateway.refusals import Refused, unavailable
from palette.gateway.wire import body_of
from palette.reporting.wording import TEMPLATES
from palette.signing.instants import told

if TYPE_CHECKING:
    from palette.certificates import Certificate
    from palette.gateway.store import Store

HOME, STYLE, ENTER, LEAVE, ASK = "/admin", "/admin/page.css", "/admin/enter", "/admin/leave", "/admin/ask"
COOKIE = "palette_admin"
ENTRIES = 10
"""Times a minute that an address may try to enter."""
DECISIONS = 50
"""Entries of the ledger that are shown."""
KINDS = ("decision", "models", "playground", "operator_entry")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # Without a referrer a browser would say of no form where it comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
PAGES = TEMPLATES.overlay(
    loader=ChoiceLoader([PackageLoader("palette.gateway"), PackageLoader("palette.reporting")])
)


@dataclass(frozen=True)
class Desk:
    """What the page is of: the store, the certificates as they are served now, and where it is reached.

    ``origins`` are such as ``http://127.0.0.1:8400``; ``holds_floor`` tells of a text whether it holds a
    prompt of the floor, and without it there is no playground.
    """

    store: Store
    certificates: Callable[[], Sequence[Certificate]]
    origins: tuple[str, ...]
    holds_floor: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Visitor:
    """One request: the token of its cookie, and whose session that is of."""

    token: str
    key: OperatorKey | None


class Page:
    """The routes of the page."""

    def __init__(self, admission: Admission, desk: Desk) -> None:
        self._admission, self._desk = admission, desk
        self._sessions, self._entries = Sessions(), Windows()
        self._playground = desk.holds_floor and Playground(admission, desk.holds_floor)

    def add(self, app: FastAPI) -> None:
        """Adds the routes, which are no part of what tenants are told."""
        for path, method, handler in (
            (HOME, "GET", self._home),
            (STYLE, "GET", self._style),
            (ENTER, "POST", self._enter),
            (LEAVE, "POST", self._leave),
            (ASK, "POST", self._ask),
        ):
            app.add_api_route(path, self._guarded(handler), methods=[method], include_in_schema=False)

    def _guarded(
        self, handler: Callable[[Request, Visitor], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            host = request.headers.get("host", "")
            # Another name for this address is another site's, which would have its visitors ask here.
            if host not in {urlsplit(each).netloc for each in self._desk.origins} or not await self._keys():
                raise Refused(404, "not_found", "there is nothing here")
            visitor = await self._visitor(request)
            try:
                response = await handler(request, visitor)
            except Refused as refused:
                response = await self._shown(visitor, refused.status, said=refused.message)
            response.headers.update(HEADERS)
            return response

        return guarded

    async def _home(self, request: Request, visitor: Visitor) -> Response:
        return await self._shown(visitor, 200 if visitor.key else 401)

    async def _style(self, request: Request, visitor: Visitor) -> Response:
        return Response(PAGES.get_template("admin.css").render(), media_type="text/css")

    async def _enter(self, request: Request, visitor: Visitor) -> Response:
        address = request.client.host if request.client else "unknown"
        if (again := self._entries.hit(ENTRIES, "address", address)) is not None:
            raise Refused(429, "rate_limited", f"too many tries; come again in {round(again) + 1} seconds")
        given = await self._form(request, visitor)
        key = await self._asking(known_operator, self._desk.store, given.get("key", "").strip())
        status, reason = (200, "entered") if key else (401, "no_operator")
        await self._record(key, status, reason)
        if key is None:
            raise Refused(401, "no_operator", "that is no operator's key, or one that was taken away")
        self._sessions.leave(visitor.token)
        return self._home_again(self._sessions.enter(key))

    async def _leave(self, request: Request, visitor: Visitor) -> Response:
        await self._form(request, visitor)
        if visitor.key is not None:
            self._sessions.leave(visitor.token)
            await self._record(visitor.key, 200, "left")
        return self._home_again(self._sessions.visitor())

    async def _ask(self, request: Request, visitor: Visitor) -> Response:
        given = await self._form(request, visitor)
        if visitor.key is None:
            raise Refused(401, "no_session", "this session has ended; enter again")
        if not self._playground:
            raise Refused(404, "not_found", "there is no playground here")
        served = {each.id: each for each in await self._asking(self._in_force)}
        certificate = served.get(given.get("certificate", ""))
        if certificate is None:
            raise Refused(403, "no_certificate", "an authorisation must be certified, and in force now")
        sides = await self._playground.ask(visitor.key, certificate, given.get("prompt", ""))
        return await self._shown(visitor, 200, sides=sides)

    async def _visitor(self, request: Request) -> Visitor:
        token = request.cookies.get(COOKIE, "")
        key = self._sessions.of(token)
        # A key that was taken away ends its sessions.
        if key is not None and key not in await self._keys():
            self._sessions.leave(token)
            key = None
        return Visitor(token, key)

    async def _keys(self) -> list[OperatorKey]:
        keys: list[OperatorKey] = await self._asking(operators, self._desk.store)
        return keys

    async def _form(self, request: Request, visitor: Visitor) -> dict[str, str]:
        """What a form says, once it is known to be this visitor's own.

        Raises:
            Refused: if it comes from elsewhere, or cannot be read.
        """
        if request.headers.get("origin") not in self._desk.origins:
            raise Refused(403, "another_origin", "a form must come from this page itself")
        if request.headers.get("content-type", "").lower() != "application/x-www-form-urlencoded":
            raise Refused(415, "unsupported_media_type", "a form must be sent as forms are")
        body = await body_of(request, self._admission.services.limits)
        try:
            found = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=8, errors="strict"))
        except ValueError:
            raise Refused(400, "invalid_form", "a form must be readable") from None
        if not self._sessions.is_word(found.get("word", ""), visitor.token):
            raise Refused(403, "forged", "this page is too old, or the form is another's; send it again")
        return found

    async def _shown(
        self, visitor: Visitor, status: int, *, said: str = "", sides: Sides | None = None
    ) -> Response:
        """The page as it is now: of an operator the whole, of anybody else the way in."""
        token = visitor.token or self._sessions.visitor()
        given: dict[str, Any] = {"word": self._sessions.word(token), "said": said, "sides": sides}
        if visitor.key is not None:
            given |= {"key": visitor.key, "playground": self._playground is not None}
            given |= await self._asking(self._facts)
        page = PAGES.get_template("admin.html" if visitor.key else "enter.html").render(given)
        response = Response(page, status, media_type="text/html")
        if not visitor.token:
            self._set(response, token)
        return response

    def _home_again(self, token: str) -> Response:
        response = Response(status_code=303, headers={"Location": HOME})
        self._set(response, token)
        return response

    def _set(self, response: Response, token: str) -> None:
        secure = self._desk.origins[0].startswith("https:")
        response.set_cookie(COOKIE, token, path=HOME, secure=secure, httponly=True, samesite="strict")

    def _facts(self) -> dict[str, Any]:
        """What the page shows, as the store says it at one moment."""
        store, now = self._desk.store, self._admission.clock()
        with store.moment():
            keys, grants = store.credentials(), store.grants()
            facts = {
                "tenants": [
                    (each, sum(key.tenant == each.id and key.revoked is None for key in keys))
                    for each in store.tenants()
                ],
                "grants": [(each, _standing(each, now)) for each in grants],
                "decisions": recent(store, DECISIONS, KINDS),
                "served": self._in_force(),
            }
        certificates = [(each, each.standing(now)) for each in self._desk.certificates()]
        return {**facts, "certificates": certificates, "now": told(now), "told": told}

    def _in_force(self) -> list[Certified]:
        services, now = self._admission.services, self._admission.clock()
        current = services.catalogue.current(services.authority.revoked_certificates(), now)
        return [
            each
            for each in current
            if each.revoked is None
            and each.backbone == services.backend.backbone
            and each.not_before <= now < each.expires
        ]

    async def _record(self, key: OperatorKey | None, status: int, reason: str) -> None:
        name = {"operator": key.name} if key else {}
        credential = key.id if key else None
        await self._admission.record(
            Event("operator_entry", credential=credential, status=status, reason=reason, remarks=name)
        )

    @staticmethod
    async def _asking(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments)
        except PaletteError as error:
            raise unavailable("store_unavailable") from error


def _standing(one: Any, now: Any) -> str:
    """``in force``, or why a grant is not."""
    if one.revoked is not None:
        return "revoked"
    if now < one.not_before:
        return "not yet in force"
    return "in force" if now < one.expires else "expired"
