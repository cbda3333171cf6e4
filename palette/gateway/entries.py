"""The entries and heads of a ledger in its database: appended under the one lock, read in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, insert, or_, select, true

from palette.errors import SignatureError, StoreError
from palette.gateway.ledger import Chain, Entry, Fault, Head, entry, read_head
from palette.gateway.tables import ENTRIES, HEADS
from palette.signing import Envelope, KeyRing, PrivateKey

BLOCK = 2000
"""Entries that are read at once."""
# Built once: they are asked with every entry.
_ALL = select(ENTRIES).order_by(ENTRIES.c.sequence).limit(BLOCK)
_BEHIND = _ALL.where(ENTRIES.c.sequence > bindparam("after"))


def append(
    connection: Connection,
    events: Sequence[Mapping[str, Any]],
    at: datetime,
    after: tuple[int, str] | None = None,
) -> list[Entry]:
    """The entries of some events, given as their JSON, at the end of the ledger; of a writing connection.

    ``after`` is an entry that the writer knows of, by number and hash: all behind it must follow.

    Raises:
        StoreError: if the ledger is not what was written to it.
    """
    sequence, last = end(connection) if after is None else _followed(connection, after)
    made: list[Entry] = []
    for each in events:
        made.append(entry(sequence + 1, last, at, each))
        sequence, last = made[-1].sequence, made[-1].hash
    if made:
        connection.execute(insert(ENTRIES), [vars(each) for each in made])
    return made


def end(connection: Connection) -> tuple[int, str]:
    """The number and the hash of the last entry.

    Raises:
        StoreError: if there is none, which no ledger is without.
    """
    last = connection.execute(
        select(ENTRIES.c.sequence, ENTRIES.c.hash).order_by(ENTRIES.c.sequence.desc()).limit(1)
    ).first()
    if last is None:
        raise StoreError(
            "a ledger must have its first entry", got="none", remedy="restore a copy of the store"
        )
    return last.sequence, last.hash


def _followed(connection: Connection, after: tuple[int, str]) -> tuple[int, str]:
    """The number and the hash of the last entry, where all follow from one that is known."""
    found = read(connection, after=after[0] - 1)
    last, chain = next(found, None), Chain(after=after)
    faults = chain.faults
    if last is None or (last.sequence, last.hash) != after:
        faults = [Fault(after[0], "is missing, or is another one")]
    else:
        for last in found:
            chain.follow(last)
    if last is None or faults:
        raise StoreError(
            "a ledger must hold what was written to it",
            got=f"entry {faults[0].sequence} {faults[0].what}",
            remedy="run palette ledger verify; nothing is served on it",
        )
    return last.sequence, last.hash


def read(connection: Connection, kinds: Sequence[str] = (), after: int | None = None) -> Iterator[Entry]:
    """The entries behind a number, or all, in the order of their numbers; of some kinds alone if given."""
    while True:
        query = _ALL if after is None else _BEHIND
        found = connection.execute(query.where(_of(kinds)) if kinds else query, {"after": after})
        rows = found.all()
        yield from map(_entry, rows)
        if len(rows) < BLOCK:
            return
        after = rows[-1].sequence


def latest(connection: Connection, count: int, kinds: Sequence[str] = ()) -> list[Entry]:
    """The last entries, the newest first; of some kinds alone if given."""
    query = select(ENTRIES).where(_of(kinds)).order_by(ENTRIES.c.sequence.desc()).limit(count)
    return [_entry(row) for row in connection.execute(query)]


def _of(kinds: Sequence[str]) -> ColumnElement[bool]:
    # A quotation mark within a text is escaped, so that no text can pass for a kind.
    wanted = [ENTRIES.c.body.contains(f'"kind":"{kind}"', autoescape=True) for kind in kinds]
    return or_(*wanted) if wanted else true()


def sign_head(connection: Connection, key: PrivateKey, at: datetime) -> tuple[Head, Envelope]:
    """The present end of the ledger, signed, and kept; of a writing connection.

    Raises:
        SignatureError: if the key is not one of ledgers.
        StoreError: if the ledger has no entry.
    """
    sequence, last = end(connection)
    first = connection.execute(select(ENTRIES.c.hash).order_by(ENTRIES.c.sequence).limit(1)).scalar_one()
    head = Head(first, sequence, last, at)
    envelope = head.envelope(key)
    held = connection.execute(select(HEADS.c.digest).where(HEADS.c.digest == envelope.digest)).first()
    if held is None:
        row = {"digest": envelope.digest, "sequence": sequence, "envelope": envelope.text}
        connection.execute(insert(HEADS), row)
    return head, envelope


def read_heads(connection: Connection, ring: KeyRing) -> tuple[list[Head], list[Fault]]:
    """The heads that were kept and hold, and what does not hold of the others."""
    found: list[Head] = []
    faults: list[Fault] = []
    for row in connection.execute(select(HEADS).order_by(HEADS.c.sequence, HEADS.c.digest)):
        try:
            found.append(read_head(Envelope.read(str(row.envelope)), ring))
        except SignatureError as error:
            faults.append(Fault(row.sequence, f"has a head that does not hold: {error}"))
    return found, faults


def last_head(connection: Connection, ring: KeyRing) -> Head | None:
    """The last of the heads that were kept and hold."""
    for row in connection.execute(select(HEADS).order_by(HEADS.c.sequence.desc(), HEADS.c.digest)):
        with suppress(SignatureError):
            return read_head(Envelope.read(str(row.envelope)), ring)
    return None


def _entry(row: Row[Any]) -> Entry:
    # What was written by another hand can be of any type.
    return Entry(row.sequence, str(row.hash), str(row.body))
