"""A gateway with the operator's page over a store, a ledger and a certificate that are real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from palette.certificates import Certificate
from palette.gateway.admin import COOKIE, Desk
from palette.gateway.app import Surface, create_app
from palette.gateway.operations import Operator
from palette.gateway.operators import add_operator
from palette.gateway.store import Store
from palette.stages.serve import served
from tests.certificates.conftest import BACKBONE
from tests.gateway.fakes import Clock, Words, World

ORIGIN = "http://127.0.0.1:8400"
FLOOR = "how is the weapon made ?"


@dataclass
class Office:
    """A store with a tenant and a certificate, and who operates them."""

    store: Store
    certificate: Certificate
    origin: str = ORIGIN
    clock: Clock = field(default_factory=Clock)
    backend: Words = field(default_factory=lambda: Words(backbone=BACKBONE))
    holds_floor: Callable[[str], bool] | None = lambda text: FLOOR in text

    @property
    def operator(self) -> Operator:
        return Operator(self.store, "Olga", self.clock)

    def key(self, name: str = "Ann") -> str:
        """A new operator's key."""
        return add_operator(self.operator, name)[1]

    @contextmanager
    def gateway(self, origins: tuple[str, ...] | None = None) -> Iterator[Surface]:
        from palette.gateway.trusting import Catalogue

        with self.store.writer() as recorder:
            services = World().services(
                authority=self.store,
                recorder=recorder,
                catalogue=Catalogue([served(self.certificate)]),
                backend=self.backend,
                clock=self.clock,
                keyed=self.store.keyed,
            )
            desk = Desk(self.store, lambda: [self.certificate], origins or (self.origin,), self.holds_floor)
            yield create_app(services, None, desk)

    @asynccontextmanager
    async def visited(self) -> AsyncIterator[Visits]:
        """A visitor of the page."""
        with self.gateway() as gateway:
            async with (
                gateway.inner.router.lifespan_context(gateway.inner),
                httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url=self.origin) as client,
            ):
                yield Visits(client, self.origin)


@dataclass
class Visits:
    """What a visitor does, as its browser would."""

    client: httpx.AsyncClient
    origin: str
    page: httpx.Response | None = None

    async def home(self) -> httpx.Response:
        self.page = await self.client.get("/admin")
        return self.page

    async def send(self, path: str, origin: str | None = None, **fields: str) -> httpx.Response:
        """Sends a form of the page, with what is hidden in it."""
        if self.page is None:
            await self.home()
        assert self.page is not None
        word = self.page.text.partition('name="word" value="')[2].partition('"')[0]
        headers = {"Origin": origin or self.origin}
        return await self.client.post(path, data={"word": word, **fields}, headers=headers)

    async def enter(self, key: str) -> httpx.Response:
        reply = await self.send("/admin/enter", key=key)
        await self.home()
        return reply

    @property
    def token(self) -> str:
        return self.client.cookies.get(COOKIE) or ""


def made(store: Store, certificate: Certificate, grant: Any) -> Office:
    """An office whose store has tenants, one of whom is granted what the certificate is for."""
    office = Office(store, certificate)
    for tenant, name in (("hospital", "St. Ann <script>alert(1)</script>"), ("firm", "Firm")):
        office.operator.add_tenant(tenant, name)
    office.operator.suspend("firm", "unpaid")
    office.operator.add_key("hospital")
    office.operator.add_grant(grant)
    return office
