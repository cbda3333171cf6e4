"""What a gateway believes as it stands now: certificates in folders, a signed list of revocations, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from palette.authorisation import FLOOR, Certified, Credential, Grant, Tenant
from palette.certificates import Certificate, read_certificate, read_revocations
from palette.errors import GatewayError, PaletteError
from palette.gateway.backend import Backend, Canary, Served
from palette.gateway.identity import Provider
from palette.gateway.store import Store
from palette.gateway.watched import Shelf, Watched
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


def certified(adapters: Sequence[Path | str], ring: KeyRing, revoked: Path | None) -> list[Certificate]:
    """The certificates of some adapters' folders, verified, with the bytes that they are of.

    Raises:
        AdapterError: if an adapter is missing, or not a plain LoRA.
        GatewayError: if there is none.
        SignatureError: if a certificate does not hold.
    """
    if not adapters:
        raise GatewayError(
            "a gateway serves certified adapters",
            got="none",
            remedy="name their folders; palette certify makes them",
        )
    instants = read_revocations(revoked, ring).instants if revoked is not None else {}
    return [read_certificate(each, ring, instants) for each in adapters]


def shelved(
    adapters: Sequence[Path | str], ring: Callable[[], KeyRing], revoked: Path | None
) -> Shelf[Certificate]:
    """The certificates of some adapters' folders, read again when their files are others.

    Raises:
        AdapterError: if an adapter is missing, or not a plain LoRA.
        GatewayError: if there is none.
        SignatureError: if a certificate does not hold.
    """

    def read(folder: Path) -> Certificate:
        (found,) = certified([folder], ring(), revoked)
        return found

    if not adapters:
        certified(adapters, ring(), revoked)
    return Shelf([Path(each) for each in adapters], read)


async def renew(shelf: Shelf[Certificate], backend: Backend, catalogue: Catalogue) -> None:
    """Returns nothing; serves what folders hold that was not served yet, once the backend has it.

    What the backend cannot serve is noted, and the certificate before it stays.
    """
    for number, found in await asyncio.to_thread(lambda: list(shelf.changed())):
        try:
            await backend.add([served(found)])
            others = [each for index, each in enumerate(shelf.taken) if index != number]
            catalogue.put([served(each) for each in (*others, found)])
        except GatewayError as error:
            shelf.refuse(number, error)
        else:
            shelf.take(number, found)


def faults_of(provider: Provider | None) -> list[str]:
    """What is wrong with the keys of a provider that are there now."""
    fault = getattr(provider.keys, "fault", None) if provider is not None else None
    return [fault] if fault else []


def served(certificate: Certificate) -> Served:
    """A certificate as far as a backend needs it."""
    backbone = certificate.facts.backbone
    return Served(
        certificate.certified,
        certificate.adapter,
        certificate.write,
        tuple(Canary(each.prompt, each.reply) for each in certificate.facts.canaries),
        backbone.system,
        backbone.thinking,
    )


class TrustingStore:
    """A store that believes whom the trusted keys name now, and knows the signed list of revocations."""

    def __init__(self, store: Store, ring: Watched[KeyRing], revoked: Path | None) -> None:
        self._store, self._ring = store, ring
        self._latest = 0
        self._revoked = Watched(revoked, self._read, lasting=True) if revoked is not None else None

    def moment(self) -> AbstractContextManager[object]:
        """A block in which this thread is told all as it stands at one moment."""
        return self._store.moment()

    def known(self, secret: str) -> tuple[Tenant, tuple[Credential, ...]] | None:
        """The tenant of an API key's text, and the credential with all its parents; None if unknown."""
        return self._store.known(secret)

    def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant of this id; None if unknown."""
        return self._store.tenant(tenant_id)

    def grants(self, tenant_id: str) -> Sequence[Grant]:
        """A tenant's grants, verified by the keys that are trusted now."""
        if (ring := self._ring()) is not self._store.ring:
            self._store.trust(ring)
        return self._store.grants(tenant_id)

    def revoked_certificates(self) -> Mapping[str, datetime]:
        """Since when certificates are revoked: in the store, or by the signed list."""
        listed = self._revoked() if self._revoked is not None else {}
        return {**listed, **self._store.revoked_certificates()}

    @property
    def faults(self) -> list[str]:
        """What is wrong with the list of revocations that is there now."""
        fault = self._revoked.fault if self._revoked is not None else None
        return [fault] if fault else []

    def _read(self, path: Path) -> Mapping[str, datetime]:
        # An earlier list, which is held out again, would revoke less.
        found = read_revocations(path, self._ring(), self._latest)
        self._latest = found.number
        return found.instants
