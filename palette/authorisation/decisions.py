"""The one decision: what may this tenant ask for now, and with which adapter is it answered?

A pure function of what is known. What it is not told opens nothing: no grant, no certificate, no adapter. The
authorisation of a tenant is exactly what its grants give at this instant, within what the credential may ask
for; it is answered with the adapter that is certified for exactly those domains, never a smaller or a larger
one, and never with the plain backbone instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from palette.authorisation.floor import FLOOR
from palette.authorisation.grants import Certified, Credential, Grant, Tenant, authorisation_name
from palette.signing import same_person


class Reason(StrEnum):
    """Why it was decided so; all but the first deny."""

    ALLOWED = "allowed"
    NO_TENANT = "no_tenant"
    SUSPENDED = "tenant_suspended"
    EXPIRED_CREDENTIAL = "credential_expired"
    REVOKED_CREDENTIAL = "credential_revoked"
    WIDER_CREDENTIAL = "credential_wider_than_its_parent"
    NO_GRANT = "no_grant"
    NOT_GRANTED = "not_granted"
    NO_CERTIFICATE = "no_certificate"
    SELF_CERTIFIED = "authoriser_is_certifier"


UNAUTHENTICATED = frozenset(
    {Reason.NO_TENANT, Reason.EXPIRED_CREDENTIAL, Reason.REVOKED_CREDENTIAL, Reason.WIDER_CREDENTIAL}
)
"""Reasons that say nothing of who asks; the others are a known tenant's."""


@dataclass(frozen=True)
class Request:
    """What is asked for: an authorisation by its name, by which credential, of which backbone.

    ``credentials`` are the one that was shown and those that it descends from, up to the tenant's own.
    """

    model: str
    credentials: tuple[Credential, ...]
    backbone: str


@dataclass(frozen=True)
class Decision:
    """Allowed or denied, with the reason; if allowed, with which adapter, by which grants, and until when."""

    reason: Reason
    tenant: str | None
    domains: frozenset[str] = frozenset()
    certificate: Certified | None = None
    grants: tuple[str, ...] = ()
    """Digests of the grants that together give the domains."""
    until: datetime | None = None
    """The first instant at which something that was needed ends."""

    @property
    def allowed(self) -> bool:
        """Whether it may be answered."""
        return self.reason is Reason.ALLOWED

    @property
    def status(self) -> int:
        """The HTTP status: 200, 401 where nobody known asks, 403."""
        return 200 if self.allowed else 401 if self.reason in UNAUTHENTICATED else 403

    @property
    def name(self) -> str:
        """The name of the authorisation that was decided on."""
        return authorisation_name(self.domains)


def decide(
    tenant: Tenant | None,
    request: Request,
    grants: Iterable[Grant],
    certificates: Iterable[Certified],
    now: datetime,
) -> Decision:
    """Whether a tenant's request may be answered at this instant, and with what."""
    decided = authorisation(tenant, request.credentials, request.backbone, grants, certificates, now)
    # Where it has domains, whatever comes of them, it has one name, and nothing else is there for it.
    if decided.domains and request.model != decided.name:
        return Decision(Reason.NOT_GRANTED, decided.tenant, decided.domains)
    return decided


def authorisation(
    tenant: Tenant | None,
    credentials: Sequence[Credential],
    backbone: str,
    grants: Iterable[Grant],
    certificates: Iterable[Certified],
    now: datetime,
) -> Decision:
    """What a tenant may ask for at this instant, whatever it asks for: its only model."""
    if tenant is None or not credentials or any(each.tenant != tenant.id for each in credentials):
        return Decision(Reason.NO_TENANT, None)
    if refused := _refused(credentials, now):
        return Decision(refused, tenant.id)
    if tenant.suspended:
        return Decision(Reason.SUSPENDED, tenant.id)
    current = [
        each
        for each in grants
        if each.tenant == tenant.id and each.revoked is None and each.not_before <= now < each.expires
    ]
    domains = frozenset(domain for each in current for domain in each.domains)
    for credential in credentials:
        domains = domains if credential.domains is None else domains & credential.domains
    used = [each for each in current if each.domains & domains]
    if not domains or any(FLOOR.holds(domain, None, None) for domain in domains):
        return Decision(Reason.NO_GRANT, tenant.id)
    digests = tuple(sorted(each.digest for each in used))
    fitting = [
        each
        for each in certificates
        if each.domains == domains
        and each.backbone == backbone
        and each.revoked is None
        and each.not_before <= now < each.expires
    ]
    if not fitting:
        return Decision(Reason.NO_CERTIFICATE, tenant.id, domains, grants=digests)
    if not (independent := [each for each in fitting if not any(_is_own(each, one) for one in used)]):
        return Decision(Reason.SELF_CERTIFIED, tenant.id, domains, grants=digests)
    # Of several, the one that was certified last; then by its digest, so that all gateways choose alike.
    chosen = max(independent, key=lambda each: (each.not_before, each.id))
    ends = [chosen.expires, *(each.expires for each in used)]
    ends += [each.expires for each in credentials if each.expires is not None]
    return Decision(Reason.ALLOWED, tenant.id, domains, chosen, digests, min(ends))


def _is_own(certificate: Certified, used: Grant) -> bool:
    """Whether who granted has certified too: by one key, or by two of one person's."""
    same = bool(used.holder) and same_person(used.holder, certificate.holder)
    return same or used.issuer == certificate.signer


def _refused(credentials: Sequence[Credential], now: datetime) -> Reason | None:
    """Why a credential, or one that it descends from, asks for nothing."""
    for each in credentials:
        if each.revoked is not None:
            return Reason.REVOKED_CREDENTIAL
        if each.expires is not None and now >= each.expires:
            return Reason.EXPIRED_CREDENTIAL
    for child, parent in pairwise(credentials):
        if parent.domains is not None and (child.domains is None or not child.domains <= parent.domains):
            return Reason.WIDER_CREDENTIAL
    return None
