"""The certificates that a gateway serves, as they stand at an instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from palette.authorisation import FLOOR, Certified
from palette.errors import GatewayError, PaletteError
from palette.gateway.backend import Served
from palette.signing import KeyRing, Purpose


@dataclass
class Catalogue:
    """Certificates that held when they were put here; their keys are asked after again at every decision.

    ``ring`` gives the trusted keys as they stand now; it may raise, and then nothing is certified.
    """

    certificates: Sequence[Served]
    ring: Callable[[], KeyRing] | None = None

    def __post_init__(self) -> None:
        self.put(self.certificates)

    def put(self, certificates: Sequence[Served]) -> None:
        """Serves these from now on, and no others.

        Raises:
            GatewayError: if one is given twice, or is of the floor.
        """
        seen: set[str] = set()
        for each in certificates:
            if each.facts.id in seen:
                raise GatewayError("a certificate must be given once", got=f"{each.facts.id[:12]} twice")
            seen.add(each.facts.id)
            if any(FLOOR.holds(domain, None, None) for domain in each.facts.domains):
                raise GatewayError("the floor cannot be served", got=f"a certificate of {each.facts.id[:12]}")
        self.certificates = certificates

    def current(self, revoked: Mapping[str, datetime], now: datetime) -> list[Certified]:
        """What the certificates say, with what was revoked since: themselves, or the keys that signed."""
        keys = self._keys()
        return [self._current(each.facts, revoked, keys, now) for each in self.certificates]

    def _keys(self) -> KeyRing | None:
        if self.ring is None:
            return None
        try:
            return self.ring()
        except (PaletteError, OSError):
            # Whom to believe cannot be read: nobody is.
            return KeyRing({})

    @staticmethod
    def _current(
        facts: Certified, revoked: Mapping[str, datetime], keys: KeyRing | None, now: datetime
    ) -> Certified:
        since = revoked.get(facts.id)
        if keys is not None:
            key = keys.keys.get(facts.signer)
            if key is None or key.purpose is not Purpose.CERTIFY or key.revoked is not None:
                since = since or now
        return facts if since is None else replace(facts, revoked=since)
