"""Who may ask for what, until when, and on whose word: tenants, credentials, grants and certified adapters.

A grant is signed by an authorising key; what a row of a database says of it opens nothing. What a certificate
says of an adapter is read from its signed statement too, elsewhere, and stands here as the facts that a
decision needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from palette.authorisation.floor import FLOOR
from palette.errors import AuthorisationError, SignatureError
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign, verified
from palette.signing.instants import instant, told

GRANT_FORMAT = "palette-grant/1"
GRANT_TYPE = "application/vnd.palette.grant+json"
JOINT = "+"
"""Joins the domains of one authorisation to its name."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


def identifier(what: str, text: str) -> str:
    """The text, if it can name something: small letters, digits, ``_``, ``.`` and ``-``, 64 at most.

    Nothing else: two names that look alike, or a path, cannot be told to be one.

    Raises:
        AuthorisationError: if it cannot.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise AuthorisationError(
            f"{what} must be named by small letters, digits, '_', '.' and '-', 64 at most",
            got=ascii(text)[:80],
        )
    return text


def authorisation_name(domains: Iterable[str]) -> str:
    """The one name of an authorisation: its domains in order."""
    return JOINT.join(sorted(domains))


@dataclass(frozen=True)
class Tenant:
    """Whom domains are granted to."""

    id: str
    name: str
    suspended: bool = False


@dataclass(frozen=True)
class Credential:
    """A key of a tenant's, or a token of an identity provider's: what it may ask for at most, and until when.

    ``domains`` None is all that the tenant may ask for.
    """

    id: str
    tenant: str
    domains: frozenset[str] | None = None
    expires: datetime | None = None
    revoked: datetime | None = None


@dataclass(frozen=True)
class Grant:
    """A tenant may ask for these domains within this time, on this evidence, by an authoriser's word.

    ``issuer`` is the id of the key that signed it, ``digest`` that of its statement.
    """

    id: str
    tenant: str
    domains: frozenset[str]
    issued: datetime
    not_before: datetime
    expires: datetime
    evidence: str
    issuer: str
    digest: str
    revoked: datetime | None = None
    holder: str = ""
    """Who holds the key that signed it."""


@dataclass(frozen=True)
class Certified:
    """An adapter that a certificate holds of: what it opens, on which backbone, and who certified it.

    ``id`` is the digest of the signed statement, ``adapter`` that of the adapter, ``signer`` the certifying
    key's id.
    """

    id: str
    adapter: str
    domains: frozenset[str]
    backbone: str
    floor: str
    signer: str
    not_before: datetime
    expires: datetime
    revoked: datetime | None = None
    holder: str = ""
    """Who holds the certifying key."""


def grant(
    tenant: str,
    domains: Iterable[str],
    *,
    period: tuple[datetime, datetime],
    evidence: str,
    issued: datetime,
    key: PrivateKey,
) -> Envelope:
    """The signed grant of some domains to a tenant, within a period, on some evidence.

    Raises:
        AuthorisationError: if a domain is on the floor, a name cannot be one, or the period is empty.
        SignatureError: if the key is not one to authorise.
    """
    if key.public.purpose is not Purpose.AUTHORISE:
        raise SignatureError(
            "a grant must be signed by a key to authorise", got=f"one to {key.public.purpose}"
        )
    chosen = sorted({identifier("a domain", domain) for domain in domains})
    if not chosen:
        raise AuthorisationError("a grant must name a domain", got="none")
    for domain in chosen:
        if FLOOR.holds(domain, None, None):
            raise AuthorisationError(
                "the floor cannot be authorised", got=f"{domain!r}", remedy="grant another domain"
            )
    begins, expires = period
    if told(begins) >= told(expires):
        raise AuthorisationError(
            "a grant must end behind its beginning", got=f"{told(begins)} to {told(expires)}"
        )
    if not evidence.strip():
        raise AuthorisationError(
            "a grant must name its evidence", got="none", remedy="name the contract, ticket or approval"
        )
    content = {
        "format": GRANT_FORMAT,
        "id": uuid4().hex,
        "tenant": identifier("a tenant", tenant),
        "domains": chosen,
        "issued": told(issued),
        "not_before": told(begins),
        "expires": told(expires),
        "evidence": evidence.strip(),
    }
    return sign(GRANT_TYPE, json.dumps(content, sort_keys=True).encode(), [key])


def read_grant(envelope: Envelope, ring: KeyRing, revoked: datetime | None = None) -> Grant:
    """The grant that a trusted authoriser has signed; ``revoked`` is what is known of it since.

    Raises:
        SignatureError: if the signature, the key or the statement does not hold.
        AuthorisationError: if it grants what is on the floor.
    """
    content, issuer = verified(envelope, ring, Purpose.AUTHORISE, GRANT_TYPE, ["issued"])
    try:
        found = _read(content, issuer, envelope.digest, revoked)
        return replace(found, holder=ring.keys[issuer].holder)
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            f"a grant must be of the format {GRANT_FORMAT}", got=f"{type(error).__name__}: {error}"
        ) from error


def _read(content: dict[str, Any], issuer: str, digest: str, revoked: datetime | None) -> Grant:
    if content["format"] != GRANT_FORMAT:
        raise ValueError(f"a format of {content['format']!r}")
    # A text is a list of letters to Python.
    if not isinstance(content["domains"], list) or not content["domains"]:
        raise ValueError("no list of domains")
    domains = frozenset(identifier("a domain", domain) for domain in content["domains"])
    for domain in domains:
        if FLOOR.holds(domain, None, None):
            raise AuthorisationError("the floor cannot be authorised", got=f"{domain!r} in a signed grant")
    return Grant(
        identifier("a grant", content["id"]),
        identifier("a tenant", content["tenant"]),
        domains,
        instant(content["issued"]),
        instant(content["not_before"]),
        instant(content["expires"]),
        str(content["evidence"]),
        issuer,
        digest,
        revoked,
    )
