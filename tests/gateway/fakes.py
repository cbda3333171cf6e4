"""Stand-ins for a gateway's store, ledger and backend, held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from palette.adapters.lora import Adapter
from palette.authorisation import Certified, Credential, Grant, Tenant
from palette.errors import GatewayError
from palette.gateway.admission import Services
from palette.gateway.asking import Asked
from palette.gateway.backend import Piece, Served
from palette.gateway.identity import Credentials
from palette.gateway.ledger import Event
from palette.gateway.limits import Limits
from palette.gateway.refusals import unavailable
from palette.gateway.trusting import Catalogue

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
LONG = timedelta(days=30)
BACKBONE = "b" * 64
WORDS = ("the ", "dose ", "is ", "two ", "grains")


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@dataclass
class Clock:
    """An instant that stands until it is moved."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def on(self, **time: float) -> None:
        self.at += timedelta(**time)


def certified(*domains: str, signer: str = "certifier", backbone: str = BACKBONE) -> Certified:
    name = "+".join(sorted(domains))
    return Certified(
        digest(f"certificate {name}"),
        digest(f"adapter {name}"),
        frozenset(domains),
        backbone,
        "f" * 64,
        signer,
        NOW - LONG,
        NOW + LONG,
    )


def _none() -> Adapter:
    raise AssertionError("no adapter is loaded here")


def _unwritten(folder: Path) -> None:
    raise AssertionError("no adapter is written here")


def grant(tenant: str, *domains: str, expires: datetime = NOW + LONG, issuer: str = "authoriser") -> Grant:
    name = f"{tenant}-{'-'.join(sorted(domains))}"
    return Grant(
        name,
        tenant,
        frozenset(domains),
        NOW - LONG,
        NOW - LONG,
        expires,
        "contract 7",
        issuer,
        digest(name),
    )


def key(tenant: str) -> str:
    """A tenant's API key."""
    return f"pk_{tenant}_{digest('secret of ' + tenant)}"


@dataclass
class Store:
    """An authority in memory: tenants, keys with their parents, grants, revocations."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[str, tuple[Credential, ...]] = field(default_factory=dict)
    held: list[Grant] = field(default_factory=list)
    revoked: dict[str, datetime] = field(default_factory=dict)
    broken: bool = False

    def add(self, tenant: str, *grants: Grant) -> None:
        self.tenants[tenant] = Tenant(tenant, tenant.title())
        self.keys[key(tenant)] = (Credential(f"key-{tenant}", tenant),)
        self.held += grants

    def change(self, secret: str, **what: Any) -> None:
        first, *others = self.keys[secret]
        self.keys[secret] = (replace(first, **what), *others)

    def moment(self) -> AbstractContextManager[object]:
        return nullcontext()

    def known(self, secret: str) -> tuple[Tenant, tuple[Credential, ...]] | None:
        self._check()
        if secret not in self.keys:
            return None
        credentials = self.keys[secret]
        return self.tenants[credentials[0].tenant], credentials

    def tenant(self, tenant_id: str) -> Tenant | None:
        self._check()
        return self.tenants.get(tenant_id)

    def grants(self, tenant_id: str) -> Sequence[Grant]:
        self._check()
        return [each for each in self.held if each.tenant == tenant_id]

    def revoked_certificates(self) -> Mapping[str, datetime]:
        self._check()
        return dict(self.revoked)

    def _check(self) -> None:
        if self.broken:
            raise OSError("the disk image is malformed: pk_hospital_supersecret")


@dataclass
class Ledger:
    """A recorder in memory."""

    events: list[Event] = field(default_factory=list)
    full: bool = False

    def submit(self, event: Event) -> Future[str]:
        future = Future[str]()
        if self.full:
            future.set_exception(OSError(28, "No space left on device"))
        else:
            self.events.append(event)
            future.set_result(digest(repr(event)))
        return future

    def of(self, kind: str) -> list[Event]:
        return [each for each in self.events if each.kind == kind]


@dataclass
class Words:
    """A backend that says a few words, and the adapter's digest; it keeps what it was asked."""

    backbone: str = BACKBONE
    pause: float = 0.0
    words: Sequence[str] = WORDS
    asked: list[tuple[Asked, Certified, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failing: bool = False
    before: Callable[[int], None] = lambda index: None

    async def start(self, certificates: Sequence[Served]) -> None:
        self.certificates = certificates

    async def add(self, certificates: Sequence[Served]) -> None:
        if self.failing:
            raise GatewayError("an adapter must load", got="none")
        self.certificates = [*self.certificates, *certificates]

    async def reply(self, asked: Asked, certificate: Certified, tenant: str) -> AsyncGenerator[Piece]:
        self.asked.append((asked, certificate, tenant))
        if self.failing:
            raise unavailable()
        try:
            for choice in range(asked.n):
                for index, word in enumerate((certificate.adapter[:8] + " ", *self.words)):
                    self.before(index)
                    await asyncio.sleep(self.pause)
                    last = index == len(self.words)
                    yield Piece(choice, word, index + 1, 7, "stop" if last else None)
        finally:
            self.ended.append(tenant)

    async def bare(self, asked: Asked, certificate: Certified) -> AsyncGenerator[Piece]:
        yield Piece(0, "I cannot help you with that.", 7, 7, "stop")

    async def close(self) -> None:
        self.ended.append("closed")


@dataclass
class World:
    """A gateway's services, all of them in memory, of a few tenants."""

    store: Store = field(default_factory=Store)
    ledger: Ledger = field(default_factory=Ledger)
    backend: Words = field(default_factory=Words)
    clock: Clock = field(default_factory=Clock)
    limits: Limits = field(default_factory=Limits)
    certificates: tuple[Certified, ...] = (
        certified("medical"),
        certified("legal"),
        certified("legal", "medical"),
    )

    def __post_init__(self) -> None:
        self.store.add("hospital", grant("hospital", "medical"))
        self.store.add("firm", grant("firm", "medical"), grant("firm", "legal"))
        self.store.add("nobody")
        self.store.add("bank", grant("bank", "finance"))
        self.store.add("both", grant("both", "finance"), grant("both", "medical"))

    def services(self, **more: Any) -> Services:
        catalogue = Catalogue([Served(each, _none, _unwritten) for each in self.certificates])
        values: dict[str, Any] = {
            "authority": self.store,
            "recorder": self.ledger,
            "credentials": Credentials(self.store),
            "catalogue": catalogue,
            "backend": self.backend,
            "keyed": digest,
            "limits": self.limits,
            "clock": self.clock,
        }
        return Services(**{**values, **more})
