"""What the gateway asks of a store, and of a ledger: the two protocols between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from palette.authorisation import Credential, Grant, Tenant
from palette.gateway.ledger import Event


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


class Recorder(Protocol):
    """Keeps what happened."""

    def submit(self, event: Event) -> Future[str]:
        """The hash (hex) to come of the event's entry, which is durable then, whoever goes away meanwhile."""
