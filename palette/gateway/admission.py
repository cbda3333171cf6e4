"""The way of every request: who asks, what for, the decision, and its line in the ledger.

The order is the law: nothing is answered whose decision is not in the ledger. Who asks is asked of the store
once its request has begun, in one transaction with all that is decided on, and again where the body took
longer to come than ``FRESH``; nothing of it is kept for the next request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from palette.authorisation import Decision, Reason, Request, authorisation, decide
from palette.errors import GatewayError
from palette.gateway.asking import Asked
from palette.gateway.backend import Backend
from palette.gateway.identity import Authority, Credentials
from palette.gateway.ledger import Event, Recorder
from palette.gateway.limits import Limits, Quotas
from palette.gateway.monitor import Monitor
from palette.gateway.refusals import Refused, denied, unavailable, unknown
from palette.gateway.trusting import Catalogue
from palette.gateway.visits import Admitted, Standing, Visit, event_of
from palette.signing.instants import now as instant_now

LOGGER = logging.getLogger("palette.gateway")
THREADS = 8
"""Threads that wait for the store."""
FRESH = 0.1
"""Seconds for which a decision may be taken on what the store said once the request had begun.

A revocation that was done before a request began is always seen. One that falls into this time is as one
that came right behind the decision: it ends the reply within ``Limits.watch_seconds``, which is longer.
"""
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
    renew: Callable[[], Awaitable[None]] | None = None
    """Takes what is new of certificates; it is awaited every ``Limits.renew_seconds``."""
    faults: Callable[[], Sequence[str]] = tuple
    """What files say now that does not hold, in whose place earlier ones stay."""
    lookalikes: Callable[[Asked], bool] | None = None
    """Whether a request looks like one of the floor, for the figures alone."""


class Admission:
    """Takes every request its way."""

    def __init__(self, services: Services, monitor: Monitor) -> None:
        self.services, self.monitor = services, monitor
        self.quotas = Quotas(services.limits, services.limits_storage)
        self.clock = SteadyClock(services.clock)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="palette-store")
        self._renewing: asyncio.Task[None] | None = None

    async def identified(self, visit: Visit) -> Visit:
        """The visit of somebody known, within what a key and a tenant may ask a minute.

        Raises:
            Refused: if nobody known asks, or too often; the ledger has it.
        """
        visit.standing = await self._standing(visit.secret)
        tenant, credentials = visit.standing.tenant, visit.standing.credentials
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
        decision = await self._decided(visit, asked.model, FRESH)
        if visit.tenant is not None and self.services.lookalikes is not None:
            self.monitor.asked(visit.tenant.id, floor=self.services.lookalikes(asked))
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
        at = visit.standing or await self._standing(visit.secret)
        backbone, now = self.services.backend.backbone, self.clock()
        decision = authorisation(at.tenant, at.credentials, backbone, at.grants, at.certificates, now)
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
        decision = await self._decided(admitted.visit, admitted.asked.model, 0.0)
        if not decision.allowed:
            raise denied(decision)
        if decision.certificate is None or decision.certificate.id != admitted.certificate.id:
            raise Refused(403, "certificate_replaced", "the certificate of this reply is no longer the one")

    async def finish(self, admitted: Admitted, **how: Any) -> str:
        """The hash of the entry of how a reply ended.

        Raises:
            Refused: if the ledger does not take it.
        """
        return await self.record(
            event_of("reply", admitted.visit, asked=admitted.asked, decision=admitted.decision, **how)
        )

    async def record(self, event: Event) -> str:
        """The hash of an event's entry, once it is durable.

        The ledger has the event before this first waits, so that nobody's going away takes it back.

        Raises:
            Refused: if the ledger does not take it; then nothing is answered.
        """
        try:
            future = self.services.recorder.submit(event)
        except Exception as error:
            self.monitor.lost()
            raise unavailable("ledger_unavailable") from error
        future.add_done_callback(partial(self._recorded, event))
        try:
            return await asyncio.wrap_future(future)
        except Exception as error:
            raise unavailable("ledger_unavailable") from error

    def _recorded(self, event: Event, future: Future[str]) -> None:
        """Counts an entry, or its loss, whoever still waits for it."""
        if future.exception() is not None:
            self.monitor.lost()
        else:
            self.monitor.recorded(event.kind, event.reason or "", event.status or 0)

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

        if services.renew is not None:
            self._renewing = asyncio.create_task(self._renew(services.renew))

    async def _renew(self, renew: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self.services.limits.renew_seconds)
            try:
                await renew()
            except Exception as error:
                # What is served is served on; the next look may go better.
                LOGGER.error("certificates could not be looked at: %s", type(error).__name__)

    async def close(self) -> None:
        """Ends what is under way, once every line that was begun is in the ledger."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self.services.backend.close()
        loop = asyncio.get_running_loop()
        last = loop.time() + LAST_LINES
        # Replies that were cancelled just now have yet to say so.
        while self.quotas.open and loop.time() < last:
            await asyncio.sleep(0.01)
        with suppress(Refused):
            await self.record(Event("stop"))
        self._threads.shutdown(wait=True)

    async def _decided(self, visit: Visit, model: str, fresh: float) -> Decision:
        """The decision now, on what the store said at most so many seconds ago, or says now."""
        standing = visit.standing
        if standing is None or asyncio.get_running_loop().time() - standing.asked > fresh:
            standing = await self._standing(visit.secret)
        asked = Request(model, standing.credentials, self.services.backend.backbone)
        return decide(standing.tenant, asked, standing.grants, standing.certificates, self.clock())

    async def _standing(self, secret: str | None) -> Standing:
        """What the store says now.

        Raises:
            Refused: if it cannot; then nobody is known, and nothing is opened.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._stands, secret, loop.time())
        except Exception as error:
            raise unavailable("store_unavailable") from error

    def _stands(self, secret: str | None, asked: float) -> Standing:
        services, now = self.services, self.clock()
        with services.authority.moment():
            tenant, credentials = services.credentials.known(secret, now)
            if tenant is None:
                return Standing(None, (), (), (), asked)
            grants = services.authority.grants(tenant.id)
            revoked = services.authority.revoked_certificates()
        return Standing(tenant, credentials, grants, services.catalogue.current(revoked, now), asked)

    def _hmac(self, asked: Asked | None) -> str | None:
        return self.services.keyed(asked.said) if asked else None
