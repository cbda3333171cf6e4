"""What an auditor asks of a store: does the ledger hold, and does the store say what the ledger says?

A row that somebody deleted or changed by hand is found by the entry that was written with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from palette.gateway.entries import end, latest, read, read_heads, sign_head
from palette.gateway.ledger import Chain, Entry, Head, shown
from palette.gateway.operators import operators_in
from palette.gateway.recording import head_of
from palette.gateway.store import Store
from palette.gateway.tables import GRANTS, KEYS, REVOCATIONS, TENANTS
from palette.signing import Envelope, PrivateKey
from palette.signing.instants import told

DEEDS = ("tenant", "suspension", "resumption", "key", "grant", "revocation", "operator", "operator_removal")
"""The kinds of entries that were written with a change of the store."""


@dataclass
class Told:
    """What the ledger says of the store: of each thing, the entry that says so."""

    tenants: dict[str, int] = field(default_factory=dict)
    suspended: dict[str, int] = field(default_factory=dict)
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)
    grants: dict[str, int] = field(default_factory=dict)
    revoked: dict[tuple[str, str], int] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)

    def add(self, sequence: int, event: dict[str, Any]) -> None:
        """One more event of the ledger."""
        kind, tenant, remarks = event.get("kind"), str(event.get("tenant")), event.get("remarks") or {}
        if kind == "tenant":
            self.tenants[tenant] = sequence
        elif kind == "suspension":
            self.suspended[tenant] = sequence
        elif kind == "resumption":
            self.suspended.pop(tenant, None)
        elif kind == "key":
            self.keys[str(event.get("credential"))] = (str(remarks.get("seal")), sequence)
        elif kind == "grant":
            self.grants.update(dict.fromkeys(event.get("grants") or [], sequence))
        elif kind == "operator":
            self.operators[str(event.get("credential"))] = sequence
        elif kind == "operator_removal":
            self.operators.pop(str(event.get("credential")), None)
        elif kind == "revocation":
            self.revoked[(str(remarks.get("what")), str(remarks.get("subject")))] = sequence


def audit(store: Store, heads: Sequence[Path] = ()) -> dict[str, Any]:
    """Whether the ledger and the store hold, with every fault by the number of its entry.

    ``heads`` are files of signed heads that were kept elsewhere.

    Raises:
        StoreError: if the database or a head's file cannot be read.
        SignatureError: if such a head does not hold.
    """
    given = [head_of(path, store.ring) for path in heads]
    said = Told()
    with store.database.reading() as connection:
        kept, broken = read_heads(connection, store.ring)
        chain = Chain([*kept, *given])
        for one in read(connection):
            said.add(one.sequence, chain.follow(one))
        faults = [*chain.close(), *broken]
        differences = [*_differences(connection, said), *_damage(connection)]
    store.credentials()
    store.grants()
    signed = max((head.sequence for head in (*kept, *given)), default=0)
    differences += [f"{where}: {what}" for where, what in sorted(store.faults.items())]
    return {
        "ledger": chain.first,
        "entries": chain.entries,
        "last": chain.last,
        "heads": len(kept) + len(given),
        "signed_to": signed,
        "faults": [vars(fault) for fault in sorted(set(faults), key=lambda each: each.sequence)],
        "differences": differences,
        "holds": not faults and not differences,
    }


def differences(store: Store) -> list[str]:
    """What the store says otherwise than its ledger, such as a revocation whose row is gone; at a start.

    Raises:
        StoreError: if the database cannot be read.
    """
    said = Told()
    with store.database.reading() as connection:
        for one in read(connection, DEEDS):
            said.add(one.sequence, _event(one))
        return _differences(connection, said)


def export(store: Store, after: int = 0) -> Iterator[str]:
    """The texts of the entries behind a number, a line each, as they were hashed.

    Raises:
        StoreError: if the database cannot be read.
    """
    with store.database.reading() as connection:
        for one in read(connection, after=after):
            yield one.body


def recent(store: Store, count: int, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What the last entries say, the newest first; of some kinds alone if given.

    Raises:
        StoreError: if the database cannot be read.
    """
    with store.database.reading() as connection:
        return [{**one.content, "hash": one.hash} for one in latest(connection, count, kinds)]


def head(store: Store, key: PrivateKey | None, at: datetime) -> tuple[dict[str, Any], Envelope | None]:
    """The present end of the ledger, and its envelope if it is signed.

    Raises:
        StoreError: if the database cannot be read or written.
        SignatureError: if the key is not one of ledgers.
    """
    if key is None:
        with store.database.reading() as connection:
            sequence, last = end(connection)
        return {"sequence": sequence, "hash": last, "signed": None, "key": None}, None
    with store.database.writing() as connection:
        made, envelope = sign_head(connection, key, at)
    return {**_plain(made), "key": key.public.id}, envelope


def _plain(made: Head) -> dict[str, Any]:
    return {**vars(made), "signed": told(made.signed)}


def _event(one: Entry) -> dict[str, Any]:
    try:
        found = one.content["event"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(connection: Connection, said: Told) -> list[str]:
    """What the rows of the store and its ledger say otherwise."""
    tenants = {row.id: row.suspended for row in connection.execute(select(TENANTS))}
    keys = {row.id: str(row.seal) for row in connection.execute(select(KEYS.c.id, KEYS.c.seal))}
    grants = set(connection.execute(select(GRANTS.c.digest)).scalars())
    rows = connection.execute(select(REVOCATIONS.c.kind, REVOCATIONS.c.subject))
    revoked = {f"{kind} {subject}" for kind, subject in rows}
    wanted = {f"{kind} {subject}": sequence for (kind, subject), sequence in said.revoked.items()}
    found = [
        *_compared("tenant", tenants, said.tenants),
        *_compared("key", keys, {name: sequence for name, (_, sequence) in said.keys.items()}),
        *_compared("grant", grants, said.grants),
        *_compared("revocation of the", revoked, wanted),
    ]
    operators = [each.id for each in operators_in(connection)]
    found += _compared("operator's key", operators, said.operators)
    suspended = {name for name, since in tenants.items() if since is not None}
    found += _compared("suspension of the tenant", suspended, said.suspended)
    for name, seal in keys.items():
        if name in said.keys and said.keys[name][0] != seal:
            found.append(f"the key {shown(name)} is not the one that entry {said.keys[name][1]} made")
    return found


def _compared(what: str, held: Iterable[str], wanted: dict[str, int]) -> Iterator[str]:
    present = {str(each) for each in held}
    for name, sequence in wanted.items():
        if name not in present:
            yield f"the {what} {shown(name)} of entry {sequence} is not in the store: its row was taken away"
    for name in sorted(present - wanted.keys()):
        yield f"the {what} {shown(name)} is in the store without an entry: its row was put there"


def _damage(connection: Connection) -> list[str]:
    """What SQLite finds damaged of its own file; a server looks after its own."""
    if connection.dialect.name != "sqlite":
        return []
    rows = connection.execute(text("PRAGMA quick_check(5)")).scalars()
    return [f"the database is damaged: {shown(str(row))}" for row in rows if row != "ok"]
