"""The store of tenants: who is known, and what was granted and revoked, as it stands at every call.

Nothing is remembered between two calls but what a signature proves, so that a revocation holds at the next
call of every process. A row is not believed: a grant opens what its signed statement says, and a key is what
its seal under the pepper says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Row, Select, Table, and_, bindparam, insert, select

from palette.authorisation import Credential, Grant, Tenant, read_grant
from palette.authorisation.grants import identifier
from palette.errors import AuthorisationError, PaletteError, StoreError
from palette.gateway.credentials import PEPPER, Pepper, make_pepper, parsed, pepper_path, read_pepper
from palette.gateway.database import Database, data_folder
from palette.gateway.entries import last_head
from palette.gateway.recording import Heads, LedgerWriter, head_of
from palette.gateway.tables import GRANTS, KEYS, PROPERTIES, REVOCATIONS, TENANTS
from palette.signing import Envelope, KeyRing
from palette.signing.instants import instant, maybe
from palette.working import LOGGER

GENERATIONS = 8
"""Keys from a key up to the tenant's own at most."""
KEPT = 10_000
"""Verified grants that are remembered at most, by the SHA-256 of their envelopes."""


def _all(table: Table, kind: str) -> Select[Any]:
    """The rows of a table in order, each with the instant since when it is revoked, if it is."""
    its = and_(REVOCATIONS.c.kind == kind, REVOCATIONS.c.subject == table.c.id)
    found = select(table, REVOCATIONS.c.revoked).outerjoin(REVOCATIONS, its)
    return found.order_by(table.c.tenant, table.c.id)


# Built once: they are asked for every request, and to build one takes as long as to ask it.
_KEYS, _GRANTS = _all(KEYS, "key"), _all(GRANTS, "grant")
_KEY = _KEYS.where(KEYS.c.id == bindparam("key"))
_GRANTED = _GRANTS.where(GRANTS.c.tenant == bindparam("tenant"))
_TENANT = select(TENANTS).where(TENANTS.c.id == bindparam("tenant"))
_CERTIFICATES = select(REVOCATIONS.c.subject, REVOCATIONS.c.revoked).where(
    REVOCATIONS.c.kind == "certificate"
)
_PEPPER = select(PROPERTIES.c.value).where(PROPERTIES.c.name == "pepper")


class Store:
    """An authority on tenants, in a database."""

    def __init__(self, url: str, ring: KeyRing, *, pepper: Path | None = None, create: bool = False) -> None:
        """Opens it; ``create`` makes it, with its pepper, where it is not there.

        Raises:
            StoreError: if it or its pepper is missing, damaged, out of reach or another's.
        """
        self.database = Database(url, create=create)
        self.ring = ring
        """The keys whose signatures are believed."""
        self._verified: dict[str, Grant] = {}
        self.faults: dict[str, str] = {}
        """What of the store's rows did not hold when it was last asked for, by the row."""
        try:
            self.pepper = self._season(pepper or pepper_path(self.database.path, data_folder()), create)
        except PaletteError:
            self.database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives its connections back."""
        self.database.close()

    def trust(self, ring: KeyRing) -> None:
        """Believes the signatures of these keys from now on, and no others."""
        self.ring = ring
        self._verified.clear()

    def moment(self) -> AbstractContextManager[object]:
        """A block in which this thread is told all as it stands at one moment, in one transaction.

        Raises:
            StoreError: if the database cannot be read.
        """
        return self.database.reading()

    def known(self, secret: str) -> tuple[Tenant, tuple[Credential, ...]] | None:
        """The tenant of an API key's text, and the credential with all its parents; None if unknown.

        Raises:
            StoreError: if the database cannot be read.
        """
        key = parsed(secret)
        if key is None:
            return None
        with self.database.reading() as connection:
            rows = lineage(connection, key[0])
            tenant = _tenant(connection, rows[0].tenant) if rows else None
        # What is not there is compared too, so that the time does not say which ids are.
        right = self.pepper.is_mac(str(rows[0].mac) if rows else "", "key", *key)
        if tenant is None or not right or not all(map(self.is_sealed, rows)):
            return None
        return tenant, tuple(map(credential, rows))

    def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant of this id; None if unknown.

        Raises:
            StoreError: if the database cannot be read.
        """
        if not _can_name(tenant_id):
            return None
        with self.database.reading() as connection:
            return _tenant(connection, tenant_id)

    def tenants(self) -> list[Tenant]:
        """All tenants, in the order of their ids.

        Raises:
            StoreError: if the database cannot be read.
        """
        with self.database.reading() as connection:
            return [_as_tenant(row) for row in connection.execute(select(TENANTS).order_by(TENANTS.c.id))]

    def credentials(self, tenant_id: str | None = None) -> list[Credential]:
        """The keys of a tenant or of all, in the order of their ids; one whose seal does not hold is none.

        Raises:
            StoreError: if the database cannot be read.
        """
        query = _KEYS if tenant_id is None else _KEYS.where(KEYS.c.tenant == tenant_id)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return [credential(row) for row in rows if self.is_sealed(row)]

    def grants(self, tenant_id: str | None = None) -> Sequence[Grant]:
        """The grants of a tenant, or of all, verified from their signed envelopes.

        Raises:
            StoreError: if the database cannot be read.
        """
        if tenant_id is not None and not _can_name(tenant_id):
            return []
        with self.database.reading() as connection:
            if tenant_id is None:
                rows = connection.execute(_GRANTS).all()
            else:
                rows = connection.execute(_GRANTED, {"tenant": tenant_id}).all()
        return [grant for row in rows if (grant := self._grant(row)) is not None]

    def revoked_certificates(self) -> Mapping[str, datetime]:
        """Since when certificates are revoked, by their id.

        Raises:
            StoreError: if the database cannot be read.
        """
        with self.database.reading() as connection:
            return {row.subject: _since(row.revoked) for row in connection.execute(_CERTIFICATES)}

    def keyed(self, text: str) -> str:
        """A hash (hex) of a prompt that nobody can compare with one of a guess without the pepper."""
        return self.pepper.mac("prompt", text)

    def writer(self, heads: Heads | None = None) -> LedgerWriter:
        """The writer of the store's ledger, once its end follows from the last head that was signed.

        That is the last of those in the store, and in the file of heads if there is one.

        Raises:
            StoreError: if it does not follow: it was edited, or cut off.
            SignatureError: if the head in the file does not hold.
        """
        with self.database.reading() as connection:
            kept = last_head(connection, self.ring)
        known = [] if kept is None else [kept]
        if heads is not None and heads.file is not None and heads.file.exists():
            known.append(head_of(heads.file, self.ring))
        last = max(known, key=lambda head: head.sequence, default=None)
        return LedgerWriter(self.database, heads, (last.sequence, last.hash) if last else None)

    def _grant(self, row: Row[Any]) -> Grant | None:
        text = str(row.envelope)
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        where = f"grant {ascii(row.id)[1:-1][:64]}"
        try:
            if (found := self._verified.get(digest)) is None:
                found = read_grant(Envelope.read(text), self.ring)
                if len(self._verified) >= KEPT:
                    self._verified.clear()
                self._verified[digest] = found
            if (found.tenant, found.id, found.digest) != (row.tenant, row.id, row.digest):
                raise StoreError("a grant's row must be its statement's", got="another one")
        except PaletteError as error:
            self._report(where, str(error))
            return None
        self.faults.pop(where, None)
        return found if row.revoked is None else replace(found, revoked=_since(row.revoked))

    def is_sealed(self, row: Row[Any]) -> bool:
        """Whether a key's row is as it was made; if not, that is reported."""
        where = f"key {ascii(row.id)[1:-1][:64]}"
        if self.pepper.is_mac(str(row.seal), "seal", *sealed(row._asdict())):
            self.faults.pop(where, None)
            return True
        self._report(where, "a key must be as it was made, got one whose row was changed")
        return False

    def _report(self, where: str, what: str) -> None:
        if self.faults.get(where) != what:
            LOGGER.warning("%s opens nothing: %s", where, what)
        self.faults[where] = what

    def _season(self, path: Path, create: bool) -> Pepper:
        """The pepper of the store, made with it."""
        with self.database.reading() as connection:
            check = connection.execute(_PEPPER).scalar()
        if check is None and create:
            pepper = read_pepper(path) if path.exists() else make_pepper(path)
            with self.database.writing() as connection:
                connection.execute(insert(PROPERTIES), {"name": "pepper", "value": pepper.mac("check")})
            return pepper
        pepper = read_pepper(path)
        if check is None or not pepper.is_mac(str(check), "check"):
            raise StoreError(
                "a store's pepper must be the one that it was made with",
                got="another one",
                remedy=f"put it back, or name its file with {PEPPER}",
                where=path,
            )
        return pepper


def lineage(connection: Connection, key_id: str) -> list[Row[Any]]:
    """The row of a key and those of all its parents; none if one is not there, or they never end."""
    rows: list[Row[Any]] = []
    wanted: str | None = key_id
    while wanted is not None:
        row = connection.execute(_KEY, {"key": wanted}).first()
        if row is None or len(rows) == GENERATIONS:
            return []
        rows.append(row)
        wanted = row.parent
    return rows


def sealed(row: Mapping[str, Any]) -> list[Any]:
    """What of a key's row its seal is of."""
    return [row[name] for name in ("id", "tenant", "parent", "domains", "expires", "created", "mac")]


def credential(row: Row[Any]) -> Credential:
    """The credential that a row of a key, whose seal holds, says."""
    domains = None if row.domains is None else frozenset(json.loads(row.domains))
    revoked = None if row.revoked is None else _since(row.revoked)
    return Credential(row.id, row.tenant, domains, maybe(row.expires), revoked)


def _since(text: object) -> datetime:
    try:
        return instant(text)
    except ValueError:
        # Whatever became of its instant, it is revoked.
        return datetime.min.replace(tzinfo=UTC)


def _can_name(text: str) -> bool:
    """Whether a text, which a token may say, can name anything here; no database need be asked of another."""
    try:
        identifier("a tenant", text)
    except AuthorisationError:
        return False
    return True


def _tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    row = connection.execute(_TENANT, {"tenant": tenant_id}).first()
    return None if row is None else _as_tenant(row)


def _as_tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.id, row.name, row.suspended is not None)
