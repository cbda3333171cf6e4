"""Keys of each purpose, and what a test needs to sign as one of their holders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from palette.authorisation import grant
from palette.gateway.store import Store
from palette.signing import Envelope, KeyRing, PrivateKey

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Opens = Callable[[str], Store]
"""Makes or opens the store of a URL."""


@dataclass(frozen=True)
class Signers:
    """One key a purpose, a key that nobody trusts, and the ring of the others."""

    folder: Path
    authorise: PrivateKey
    ledger: PrivateKey
    stranger: PrivateKey
    ring: KeyRing

    def grant(self, tenant: str, *domains: str, key: PrivateKey | None = None) -> Envelope:
        """A grant of a year, signed."""
        return grant(
            tenant,
            domains,
            period=(BEGIN, BEGIN + timedelta(days=365)),
            evidence="contract 12",
            issued=BEGIN,
            key=key or self.authorise,
        )
