"""What an operator does to a store: each deed is written with its entry of the ledger, or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from palette.authorisation import FLOOR, Credential, Grant, Tenant, read_grant
from palette.authorisation.grants import identifier
from palette.errors import AuthorisationError, did_you_mean
from palette.gateway.credentials import new_key, parsed
from palette.gateway.entries import append
from palette.gateway.ledger import SECRET, Event, shown
from palette.gateway.store import GENERATIONS, Store, credential, lineage, sealed
from palette.gateway.tables import GRANTS, KEYS, REVOCATIONS, TENANTS
from palette.signing import Envelope
from palette.signing.instants import now, told

REVOCABLE: Mapping[str, Table | None] = {"grant": GRANTS, "key": KEYS, "certificate": None}
"""What can be revoked, and the table in which it must stand; certificates are files."""
LINE = 200
"""Characters of a name or a reason at most."""
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Operator:
    """Who does something to a store, whose name stands in the ledger."""

    store: Store
    who: str
    clock: Callable[[], datetime] = now

    def add_tenant(self, tenant_id: str, name: str | None = None) -> Tenant:
        """A new tenant.

        Raises:
            AuthorisationError: if its id cannot name one, or it is there already.
        """
        tenant = Tenant(_named("a tenant", tenant_id), one_line("a tenant's name", name or tenant_id))
        with self.store.database.writing() as connection:
            if connection.execute(select(TENANTS).where(TENANTS.c.id == tenant.id)).first():
                raise AuthorisationError("a tenant is added once", got=f"{tenant.id} again")
            row = {"id": tenant.id, "name": tenant.name, "created": told(self.clock())}
            connection.execute(insert(TENANTS), row)
            self.record(connection, Event("tenant", tenant.id, remarks={"name": tenant.name}))
        return tenant

    def suspend(self, tenant_id: str, reason: str) -> Tenant:
        """A tenant that may ask for nothing until it is resumed.

        Raises:
            AuthorisationError: if there is no such tenant, it is suspended, or no reason is given.
        """
        return self._turn(tenant_id, reason, suspended=True)

    def resume(self, tenant_id: str, reason: str) -> Tenant:
        """A tenant that may ask again.

        Raises:
            AuthorisationError: if there is no such tenant, it is not suspended, or no reason is given.
        """
        return self._turn(tenant_id, reason, suspended=False)

    def add_key(
        self,
        tenant_id: str,
        domains: Iterable[str] | None = None,
        expires: datetime | None = None,
        parent: str | None = None,
    ) -> tuple[Credential, str]:
        """A new key of a tenant's, and its text, which is told here once and kept nowhere.

        Raises:
            AuthorisationError: if there is no such tenant or parent, or the key is wider than its parent.
        """
        created, (key_id, text) = self.clock(), new_key()
        chosen = None if domains is None else frozenset(_domain(each) for each in domains)
        if chosen is not None and not chosen:
            raise AuthorisationError("a key must be for a domain, or for all of its tenant's", got="none")
        if expires is not None and expires <= created:
            raise AuthorisationError("a key must expire in the future", got=told(expires))
        made = Credential(key_id, tenant_id, chosen, expires)
        with self.store.database.writing() as connection:
            self._require_tenant(connection, tenant_id)
            if parent is not None:
                made = self._within(connection, made, parent, created)
            row: dict[str, Any] = {
                "id": key_id,
                "tenant": tenant_id,
                "parent": parent,
                "domains": None if made.domains is None else json.dumps(sorted(made.domains)),
                "expires": told(made.expires) if made.expires else None,
                "created": told(created),
                "mac": self.store.pepper.mac("key", *(parsed(text) or ())),
            }
            row["seal"] = self.store.pepper.mac("seal", *sealed(row))
            connection.execute(insert(KEYS), row)
            told_of = {name: row[name] for name in ("parent", "expires", "seal")}
            remarks = {**told_of, "domains": None if made.domains is None else sorted(made.domains)}
            self.record(connection, Event("key", tenant_id, key_id, remarks=remarks))
        return made, text

    def add_grant(self, envelope: Envelope) -> Grant:
        """A signed grant, as the store's keys verify it.

        Raises:
            SignatureError: if it does not hold.
            AuthorisationError: if there is no such tenant, or the grant is there already.
        """
        found = read_grant(envelope, self.store.ring)
        with self.store.database.writing() as connection:
            self._require_tenant(connection, found.tenant)
            if connection.execute(select(GRANTS).where(GRANTS.c.id == found.id)).first():
                raise AuthorisationError("a grant is added once", got=f"{found.id} again")
            row = {
                "digest": found.digest,
                "id": found.id,
                "tenant": found.tenant,
                "envelope": envelope.text,
            }
            connection.execute(insert(GRANTS), row)
            remarks = {
                "grant": found.id,
                "domains": sorted(found.domains),
                "not_before": told(found.not_before),
                "expires": told(found.expires),
                "issuer": found.issuer,
            }
            event = Event(
                "grant", found.tenant, reason=found.evidence, grants=(found.digest,), remarks=remarks
            )
            self.record(connection, event)
        return found

    def revoke(self, kind: str, subject: str, reason: str) -> datetime:
        """The instant from which a grant, a key or a certificate opens nothing any more.

        Raises:
            AuthorisationError: if there is no such one, it is revoked already, or no reason is given.
        """
        reason = one_line("the reason of a revocation", reason)
        at = self.clock().replace(microsecond=0)
        table = REVOCABLE[kind]
        if table is None and not _DIGEST.fullmatch(subject):
            raise AuthorisationError(
                "a certificate is revoked by its id, 64 hexadecimal digits", got=shown(subject)
            )
        with self.store.database.writing() as connection:
            tenant = None if table is None else self._owner(connection, table, kind, subject)
            mine = (REVOCATIONS.c.kind == kind) & (REVOCATIONS.c.subject == subject)
            before = connection.execute(select(REVOCATIONS.c.revoked).where(mine)).scalar()
            if before is not None:
                raise AuthorisationError(f"a {kind} is revoked once", got=f"one since {shown(before)}")
            row = {
                "kind": kind,
                "subject": subject,
                "revoked": told(at),
                "who": self.who,
                "reason": reason,
            }
            connection.execute(insert(REVOCATIONS), row)
            event = Event("revocation", tenant, reason=reason, remarks={"what": kind, "subject": subject})
            self.record(connection, event)
        return at

    def _turn(self, tenant_id: str, reason: str, *, suspended: bool) -> Tenant:
        kind = "suspension" if suspended else "resumption"
        reason = one_line(f"the reason of a {kind}", reason)
        with self.store.database.writing() as connection:
            name, since = self._require_tenant(connection, tenant_id)
            if (since is not None) is suspended:
                state = f"one suspended since {since}" if suspended else "another one"
                raise AuthorisationError(f"a {kind} must change something of a tenant", got=state)
            value = told(self.clock()) if suspended else None
            connection.execute(update(TENANTS).where(TENANTS.c.id == tenant_id).values(suspended=value))
            self.record(connection, Event(kind, tenant_id, reason=reason))
        return Tenant(tenant_id, name, suspended)

    def _within(self, connection: Connection, made: Credential, parent: str, at: datetime) -> Credential:
        """The credential within what its parent may ask for, and until its parent expires at the latest."""
        rows = lineage(connection, _named("a key", parent))
        held = [credential(row) for row in rows if self.store.is_sealed(row)]
        if not held or len(held) != len(rows) or held[0].tenant != made.tenant:
            raise AuthorisationError("a key's parent must be a key of the same tenant", got=shown(parent))
        if len(held) >= GENERATIONS:
            raise AuthorisationError(f"a key has at most {GENERATIONS - 1} parents", got=str(len(held)))
        ends = [each.expires for each in held if each.expires is not None]
        if any(each.revoked for each in held) or any(end <= at for end in ends):
            raise AuthorisationError("a key's parents must hold", got="one that is revoked or expired")
        widest = held[0].domains
        if widest is not None and made.domains is not None and not made.domains <= widest:
            more = ", ".join(sorted(made.domains - widest))
            raise AuthorisationError("a key's domains must be within its parent's", got=f"{more} as well")
        if made.expires is not None and ends and made.expires > min(ends):
            raise AuthorisationError(
                "a key must expire with its parent at the latest",
                got=told(made.expires),
                remedy=f"its parent expires at {told(min(ends))}",
            )
        domains = widest if made.domains is None else made.domains
        return Credential(made.id, made.tenant, domains, made.expires or min(ends, default=None))

    def _owner(self, connection: Connection, table: Table, kind: str, subject: str) -> str:
        named = _named(f"a {kind}", subject)
        tenant = connection.execute(select(table.c.tenant).where(table.c.id == named)).scalar()
        if tenant is None:
            raise AuthorisationError(
                f"a {kind} must be in the store to be revoked", got=f"none of {shown(subject)}"
            )
        return str(tenant)

    def _require_tenant(self, connection: Connection, tenant_id: str) -> tuple[str, str | None]:
        tenant_id = _named("a tenant", tenant_id)
        row = connection.execute(select(TENANTS).where(TENANTS.c.id == tenant_id)).first()
        if row is None:
            near = did_you_mean(tenant_id, connection.execute(select(TENANTS.c.id)).scalars())
            raise AuthorisationError(
                "a tenant must have been added",
                got=f"none of {shown(tenant_id)}",
                remedy=near or "palette tenant add adds one",
            )
        return row.name, row.suspended

    def record(self, connection: Connection, event: Event) -> None:
        """Appends what was done, and who did it, to the ledger; in the transaction that does it."""
        who = one_line("the name of who does it", self.who)
        named = replace(event, remarks={**event.remarks, "who": who})
        append(connection, [named.to_json()], self.clock())


def _named(what: str, text: str) -> str:
    """The text, if it can name something; a key's text that was given instead of a name is not told again."""
    try:
        return identifier(what, text)
    except AuthorisationError as error:
        raise AuthorisationError(error.law, got=shown(text)) from None


def _domain(name: str) -> str:
    if FLOOR.holds(_named("a domain", name), None, None):
        raise AuthorisationError("the floor cannot be authorised", got=f"{name!r}")
    return name


def one_line(what: str, text: str) -> str:
    """The text without secrets, if it is one line.

    Raises:
        AuthorisationError: if it is not.
    """
    # A secret may be told by mistake, as of a key that was lost.
    text = SECRET.sub("...", text.strip())
    if not text or not text.isprintable() or len(text) > LINE:
        raise AuthorisationError(f"{what} must be one line of at most {LINE} characters", got=shown(text))
    return text
