"""What the gateway asks of a store, and of a ledger: the two protocols between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from palette.authorisation import Credential, Grant, Tenant
from palette.gateway.ledger import Event


class Authority(Protocol):
    """Who is known, and what was granted and revoked, as it stands at the very call."""

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


class Recorder(Protocol):
    """Keeps what happened."""

    def append(self, event: Event) -> str:
        """The hash (hex) of the event's entry, which is durable before this returns."""
