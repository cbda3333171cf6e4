"""Who asks: an API key, or a token of an identity provider, told from one ``Authorization`` header.

Nothing of it is kept between requests: there is no cache of identities.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from palette.authorisation import Credential, Grant, Tenant
from palette.authorisation.grants import identifier
from palette.errors import AuthorisationError, GatewayError
from palette.gateway.watched import Watched

LONGEST = 8192
"""Characters of a credential at most."""
API_KEY = "pk_"
"""How every API key begins."""
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"})
"""Algorithms that may be chosen of: those of public keys alone, so that no public key is a secret."""
LEEWAY = 30
"""Seconds that the provider's clock and ours may be apart."""

Known = tuple[Tenant | None, tuple[Credential, ...]]
NOBODY: Known = (None, ())


def bearer(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The credential of a request's headers; None if there is none, several, or something else."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1 or len(given[0]) > LONGEST:
        return None
    scheme, _, secret = given[0].decode("latin-1").partition(" ")
    secret = secret.strip(" ")
    if scheme.lower() != "bearer" or not secret or not all("!" <= sign <= "~" for sign in secret):
        return None
    return secret


class Authority(Protocol):
    """Who is known, and what was granted and revoked, as it stands at the very call."""

    def moment(self) -> AbstractContextManager[object]:
        """A block in which all that this thread asks is told as it stands at one moment, and read at once."""

    def known(self, secret: str) -> tuple[Tenant, tuple[Credential, ...]] | None:
        """The tenant of an API key's text, and the credential with all its parents; None if unknown."""

    def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant of this id, which a token of an identity provider's names; None if unknown."""

    def grants(self, tenant_id: str) -> Sequence[Grant]:
        """A tenant's grants, verified from their signed envelopes at every call.

        A row that does not verify opens nothing and is reported.
        """

    def revoked_certificates(self) -> Mapping[str, datetime]:
        """Since when certificates are revoked, by their id."""


@dataclass(frozen=True)
class Provider:
    """An identity provider whose tokens are believed: issuer, audience, and its public keys (JWKS).

    ``keys`` are asked for at every token. ``tenant_claim`` names the tenant; ``domains_claim``, where a token
    has it, the most that it may ask for.
    """

    issuer: str
    audience: str
    keys: Callable[[], Mapping[str, Any]]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant_claim: str = "palette_tenant"
    domains_claim: str = "palette_domains"

    def __post_init__(self) -> None:
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise GatewayError(
                f"a provider's algorithms must be of {', '.join(sorted(ALGORITHMS))}",
                got=", ".join(self.algorithms) or "none",
            )

    def claims(self, token: str, now: datetime) -> dict[str, Any] | None:
        """The claims of a token that holds at an instant; None of any other."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        registry = jwt.JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=LEEWAY,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            # The key is the provider's, by its id, whatever the token says of keys (jwk, jku, x5u).
            keys = KeySet.import_key_set({"keys": [*self.keys()["keys"]]})
            found = jwt.decode(token, keys, algorithms=[*self.algorithms])
            if found.header.get("typ", "JWT").lower() not in ("jwt", "at+jwt"):
                return None
            registry.validate(found.claims)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        claims: dict[str, Any] = found.claims
        return claims

    def known(self, token: str, authority: Authority, now: datetime) -> Known:
        """Whose a token is, and what it may ask for at most."""
        claims = self.claims(token, now)
        if claims is None:
            return NOBODY
        try:
            tenant = authority.tenant(identifier("a tenant", str(claims.get(self.tenant_claim, ""))))
            # It ends when it says so; the leeway is for its beginning and for clocks, not for a longer life.
            expires = datetime.fromtimestamp(int(claims["exp"]), UTC)
            domains = self._domains(claims)
        except (AuthorisationError, ValueError, OverflowError, OSError):
            return NOBODY
        if tenant is None:
            return NOBODY
        return tenant, (Credential(f"oidc:{claims['sub']}"[:200], tenant.id, domains, expires),)

    def _domains(self, claims: Mapping[str, Any]) -> frozenset[str] | None:
        """The most that a token may ask for; None of one that says nothing of it."""
        if self.domains_claim not in claims:
            return None
        given = claims[self.domains_claim]
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise ValueError("domains are a list of names")
        return frozenset(given)


def read_provider(
    issuer: str, audience: str, jwks: Path, algorithms: Sequence[str] = ("RS256", "ES256")
) -> Provider:
    """The provider of an issuer whose public keys are in a file, which may be another while it is asked.

    Raises:
        GatewayError: if the file is none, holds what is secret, or an algorithm is not one of a public key.
    """
    keys = Watched(jwks, read_keys, lasting=True)
    keys()
    return Provider(issuer, audience, keys, tuple(algorithms))


def read_keys(jwks: Path) -> Mapping[str, Any]:
    """The public keys of a JWKS file.

    Raises:
        GatewayError: if it is none, or holds what is secret.
    """
    try:
        content: dict[str, Any] = json.loads(jwks.read_text(encoding="utf-8"))
        rows = content["keys"]
        if not rows or any(row["kty"] == "oct" or "d" in row or not row.get("kid") for row in rows):
            raise ValueError("a key that is secret, or has no kid")
        from joserfc.jwk import KeySet

        KeySet.import_key_set(content)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GatewayError(
            "an identity provider's keys must be a JWKS file of public keys, each with its kid",
            got=type(error).__name__,
            remedy="fetch it from the provider's jwks_uri",
            where=jwks,
        ) from None
    return content


@dataclass(frozen=True)
class Credentials:
    """Tells who asks, at the very call."""

    authority: Authority
    provider: Provider | None = None

    def known(self, secret: str | None, now: datetime) -> Known:
        """The tenant of a credential, and the credential with those that it descends from; else nobody."""
        if secret is None:
            return NOBODY
        if secret.startswith(API_KEY):
            return self.authority.known(secret) or NOBODY
        if self.provider is not None and secret.count(".") == 2:
            return self.provider.known(secret, self.authority, now)
        return NOBODY
