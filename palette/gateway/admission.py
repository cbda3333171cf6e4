"""The way of every request: who asks, what for, the decision, and its line in the ledger.

The order is the law: nothing is answered whose decision is not in the ledger. Who asks is asked of the store
each time, and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from palette.authorisation import Certified, Decision, Reason, Request, Tenant, authorisation, decide
from palette.errors import GatewayError
from palette.gateway.asking import Asked
from palette.gateway.authority import Authority, Recorder
from palette.gateway.backend import Backend, unavailable
from palette.gateway.catalogue import Catalogue
from palette.gateway.identity import Credentials, Known
from palette.gateway.ledger import Event
from palette.gateway.limits import Limits
from palette.gateway.monitor import Monitor
from palette.gateway.quotas import Quotas
from palette.gateway.refusals import Refused, denied, unknown
from palette.signing.instants import now as instant_now

T = TypeVar("T")
THREADS = 32
"""Threads that wait for the store and the ledger."""
LAST_LINES = 5.0
"""Seconds that the last replies have to come into the ledger, once the gateway stops."""


class SteadyClock:
    """The present instant, which never runs back: a clock that is set back revives nothing."""

    def __init__(self, clock: Callable[[], datetime] = instant_now) -> None:
        self._clock, self._latest = clock, clock()

    def __call__(self) -> datetime:
        """The present instant, or the latest that was told."""
        self._latest = max(self._latest, self._clock())
        return self._latest


@dataclass(frozen=True)
class Services:
    """What a gateway is made of."""

    authority: Authority
    recorder: Recorder
    credentials: Credentials
    catalogue: Catalogue
    backend: Backend
    keyed: Callable[[str], str] = field(repr=False)
    """A hash (hex) of a prompt that only who has the key can compare."""
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], datetime] = instant_now
    limits_storage: str = "memory://"


@dataclass
class Visit:
    """One request on its way: its id, the credential that was shown, and what is known of it so far."""

    secret: str | None = field(repr=False)
    address: str
    id: str = field(default_factory=lambda: uuid4().hex)
    tenant: Tenant | None = None
    credential: str | None = None


@dataclass(frozen=True)
class Admitted:
    """A request that may be answered, with the decision that lets it."""

    visit: Visit
    asked: Asked
    decision: Decision
    certificate: Certified


class Admission:
    """Takes every request its way."""

    def __init__(self, services: Services, monitor: Monitor) -> None:
        self.services, self.monitor = services, monitor
        self.quotas = Quotas(services.limits, services.limits_storage)
        self.clock = SteadyClock(services.clock)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="palette-store")
        self._writing: set[asyncio.Task[Any]] = set()

    async def identified(self, visit: Visit) -> Visit:
        """The visit of somebody known, within what a key and a tenant may ask a minute.

        Raises:
            Refused: if nobody known asks, or too often; the ledger has it.
        """
        tenant, credentials = await self._asking(self._known, visit.secret)
        if tenant is None or not credentials:
            # Of strangers without end the ledger need not tell each.
            self.quotas.stranger(visit.address)
            await self.refuse(visit, unknown(Reason.NO_TENANT))
        visit.tenant, visit.credential = tenant, credentials[0].id
        # Whoever may ask for nothing at all is not told what is wrong with what it sends.
        asker = authorisation(tenant, credentials, self.services.backend.backbone, (), (), self.clock())
        if asker.status == 401:
            await self.refuse(visit, denied(asker))
        try:
            self.quotas.request(tenant.id, visit.credential)
        except Refused as refused:
            await self.refuse(visit, refused)
        return visit

    async def refuse(self, visit: Visit, refused: Refused, asked: Asked | None = None) -> NoReturn:
        """Records a refusal, and raises it.

        Raises:
            Refused: always.
        """
        await self.record(
            event_of(
                "decision",
                visit,
                asked=asked,
                hmac=self._hmac(asked),
                status=refused.status,
                reason=refused.recorded,
                remarks=refused.remarks,
            )
        )
        raise refused

    async def admit(self, visit: Visit, asked: Asked) -> Admitted:
        """The request with the decision that lets it, once that is in the ledger.

        Raises:
            Refused: if it may not be answered; the ledger has it.
        """
        decision = await self._decided(visit, asked.model)
        await self.record(
            event_of(
                "decision",
                visit,
                asked=asked,
                decision=decision,
                hmac=self._hmac(asked),
                status=decision.status,
                reason=decision.reason.value,
            )
        )
        if not decision.allowed or decision.certificate is None:
            raise denied(decision)
        return Admitted(visit, asked, decision, decision.certificate)

    async def model(self, visit: Visit) -> str | None:
        """The one model that somebody known may ask for; None where there is none.

        Raises:
            Refused: if the credential is none that may ask; the ledger has it.
        """
        decision = await self._asking(self._authorised, visit.secret)
        await self.record(
            event_of("models", visit, decision=decision, status=decision.status, reason=decision.reason.value)
        )
        if decision.status == 401:
            raise denied(decision)
        return decision.name if decision.allowed else None

    async def require_still(self, admitted: Admitted) -> None:
        """Passes if the same request would be allowed now, by the same certificate.

        Raises:
            Refused: if it would not.
        """
        decision = await self._decided(admitted.visit, admitted.asked.model)
        if not decision.allowed:
            raise denied(decision)
        if decision.certificate is None or decision.certificate.id != admitted.certificate.id:
            raise Refused(403, "certificate_replaced", "the certificate of this reply is no longer the one")

    def finish(self, admitted: Admitted, **how: Any) -> asyncio.Task[str]:
        """The task that records how a reply ended: one of its own, which nobody's going away cancels."""
        event = event_of("reply", admitted.visit, asked=admitted.asked, decision=admitted.decision, **how)
        task = asyncio.get_running_loop().create_task(self.record(event))
        self._writing.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            # Whoever waited for it has it too; ``record`` has counted it.
            task.exception()

    async def record(self, event: Event) -> str:
        """The hash of an event's entry, once it is durable.

        Raises:
            Refused: if the ledger does not take it; then nothing is answered.
        """
        try:
            entry = await self._run(partial(self.services.recorder.append, event))
        except Exception as error:
            self.monitor.lost()
            raise unavailable("ledger_unavailable") from error
        self.monitor.recorded(event.kind, event.reason or "", event.status or 0)
        return entry

    async def open(self) -> None:
        """Makes ready: the backend first, then the ledger's line of the start.

        Raises:
            GatewayError: if the backend cannot serve as it must, or the ledger takes nothing.
        """
        services = self.services
        await services.backend.start(services.catalogue.certificates)
        try:
            await self.record(Event("start", remarks={"backbone": services.backend.backbone}))
        except Refused as refused:
            await services.backend.close()
            raise GatewayError(
                "a gateway needs a ledger that can be written", got=refused.__cause__
            ) from None

    async def close(self) -> None:
        """Ends what is under way, once every line that was begun is in the ledger."""
        await self.services.backend.close()
        loop = asyncio.get_running_loop()
        last = loop.time() + LAST_LINES
        # Replies that were cancelled just now have yet to say so.
        while (self.quotas.open or self._writing) and loop.time() < last:
            await asyncio.sleep(0.01)
        with suppress(Refused):
            await self.record(Event("stop"))
        self._threads.shutdown(wait=True)

    async def _decided(self, visit: Visit, model: str) -> Decision:
        return await self._asking(self._decide, visit.secret, model)

    async def _asking(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the store says.

        Raises:
            Refused: if it cannot; then nobody is known, and nothing is opened.
        """
        try:
            return await self._run(partial(function, *arguments))
        except Exception as error:
            raise unavailable("store_unavailable") from error

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _known(self, secret: str | None) -> Known:
        return self.services.credentials.known(secret, self.clock())

    def _decide(self, secret: str | None, model: str) -> Decision:
        """The decision on what stands in the store now; whoever it was a moment ago is asked again."""
        services, now = self.services, self.clock()
        tenant, credentials = self._known(secret)
        grants = services.authority.grants(tenant.id) if tenant else ()
        current = services.catalogue.current(services.authority.revoked_certificates(), now)
        asked = Request(model, credentials, services.backend.backbone)
        return decide(tenant, asked, grants, current, now)

    def _authorised(self, secret: str | None) -> Decision:
        services, now = self.services, self.clock()
        tenant, credentials = self._known(secret)
        grants = services.authority.grants(tenant.id) if tenant else ()
        current = services.catalogue.current(services.authority.revoked_certificates(), now)
        return authorisation(tenant, credentials, services.backend.backbone, grants, current, now)

    def _hmac(self, asked: Asked | None) -> str | None:
        return self.services.keyed(asked.said) if asked else None


def event_of(
    kind: str,
    visit: Visit,
    *,
    asked: Asked | None = None,
    decision: Decision | None = None,
    hmac: str | None = None,
    **more: Any,
) -> Event:
    """What is kept of a visit."""
    certificate = decision.certificate if decision else None
    return Event(
        kind=kind,
        tenant=visit.tenant.id if visit.tenant else None,
        credential=visit.credential,
        model=asked.model if asked else None,
        adapter=certificate.adapter if certificate else None,
        certificate=certificate.id if certificate else None,
        grants=decision.grants if decision else (),
        prompt_hmac=hmac,
        request=visit.id,
        **more,
    )
