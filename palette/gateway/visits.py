"""A request on its way: what is known of it, what the store said, and what the ledger keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from palette.authorisation import Certified, Credential, Decision, Grant, Tenant
from palette.gateway.asking import Asked
from palette.gateway.ledger import Event


@dataclass(frozen=True)
class Standing:
    """What the store said at one moment of who asks, and of all that a decision is taken on."""

    tenant: Tenant | None
    credentials: tuple[Credential, ...]
    grants: Sequence[Grant]
    certificates: Sequence[Certified]
    asked: float
    """When the store was asked, in the seconds of the event loop."""


@dataclass
class Visit:
    """One request on its way: its id, the credential that was shown, and what is known of it so far."""

    secret: str | None = field(repr=False)
    address: str
    id: str = field(default_factory=lambda: uuid4().hex)
    tenant: Tenant | None = None
    credential: str | None = None
    standing: Standing | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Admitted:
    """A request that may be answered, with the decision that lets it."""

    visit: Visit
    asked: Asked
    decision: Decision
    certificate: Certified


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
