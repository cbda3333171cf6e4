"""Keys of operators, by which the page at /admin is entered, and the sessions of those who have.

A key is ``po_<id>_<secret>``, no tenant's, and no tenant's key is one. The store keeps an HMAC of all of it
under the pepper, and the ledger that it was made; where there is none, there is no page.

Sessions are in memory: they end with the process, with their key, and with time. A visitor has a random token
in a cookie before it enters and another one behind. The word against forged forms is an HMAC of that token
under a secret of the process, so that strangers take no memory.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from palette.errors import AuthorisationError
from palette.gateway.credentials import BYTES
from palette.gateway.ledger import Event, shown
from palette.gateway.operations import Operator, one_line
from palette.gateway.store import Store
from palette.gateway.tables import PROPERTIES
from palette.signing.instants import told

_KEY = re.compile(r"po_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_ROW = "operator "
"""How the names of its properties begin."""


@dataclass(frozen=True)
class OperatorKey:
    """An operator's key: its id, whose it is, and since when."""

    id: str
    name: str
    created: str


def add_operator(operator: Operator, name: str) -> tuple[OperatorKey, str]:
    """A new key for the page, and its text, which is told here once and kept nowhere.

    Raises:
        AuthorisationError: if the name is not one line.
        StoreError: if the store cannot be written.
    """
    made = OperatorKey(secrets.token_hex(8), one_line("an operator's name", name), told(operator.clock()))
    secret, store = secrets.token_hex(BYTES), operator.store
    mac = store.pepper.mac("operator", secret, made.id, made.name, made.created)
    value = json.dumps({"name": made.name, "created": made.created, "mac": mac})
    with store.database.writing() as connection:
        connection.execute(insert(PROPERTIES), {"name": _ROW + made.id, "value": value})
        operator.record(connection, Event("operator", credential=made.id, remarks={"name": made.name}))
    return made, f"po_{made.id}_{secret}"


def remove_operator(operator: Operator, key_id: str, reason: str) -> None:
    """Takes an operator's key away; its sessions end with their next request.

    Raises:
        AuthorisationError: if there is no such key, or no reason is given.
        StoreError: if the store cannot be written.
    """
    reason = one_line("the reason of a removal", reason)
    with operator.store.database.writing() as connection:
        taken = connection.execute(delete(PROPERTIES).where(PROPERTIES.c.name == _ROW + key_id))
        if not taken.rowcount:
            raise AuthorisationError(
                "an operator's key must be in the store to be removed", got=f"none of {shown(key_id)}"
            )
        operator.record(connection, Event("operator_removal", credential=key_id, reason=reason))


def operators(store: Store) -> list[OperatorKey]:
    """The keys of operators, in the order of their ids.

    Raises:
        StoreError: if the database cannot be read.
    """
    with store.database.reading() as connection:
        return list(operators_in(connection))


def operators_in(connection: Connection) -> Iterator[OperatorKey]:
    """The same, of a connection that is open."""
    rows = select(PROPERTIES).where(PROPERTIES.c.name.startswith(_ROW)).order_by(PROPERTIES.c.name)
    for row in connection.execute(rows):
        said = _said(row)
        yield OperatorKey(row.name[len(_ROW) :], str(said.get("name")), str(said.get("created")))


def known_operator(store: Store, text: str) -> OperatorKey | None:
    """The operator's key of a text; None if it is none.

    Raises:
        StoreError: if the database cannot be read.
    """
    found = _KEY.fullmatch(text)
    if found is None:
        return None
    key_id, secret = found.groups()
    with store.database.reading() as connection:
        row = connection.execute(select(PROPERTIES).where(PROPERTIES.c.name == _ROW + key_id)).first()
    said = {} if row is None else _said(row)
    key = OperatorKey(key_id, str(said.get("name")), str(said.get("created")))
    # What is not there is compared too, so that the time does not say which ids are.
    right = store.pepper.is_mac(str(said.get("mac")), "operator", secret, key.id, key.name, key.created)
    return key if right else None


def _said(row: Row[Any]) -> dict[str, Any]:
    try:
        said = json.loads(row.value)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


IDLE, LONGEST = 1800.0, 8 * 3600.0
"""Seconds without a request after which a session ends, and seconds of a session at most."""
MOST = 64
"""Sessions at once; the oldest one gives way."""


@dataclass
class Session:
    """One operator's session."""

    key: OperatorKey
    begun: float
    seen: float


@dataclass
class Sessions:
    """Who has entered."""

    clock: Callable[[], float] = monotonic
    _open: dict[str, Session] = field(default_factory=dict, repr=False)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def enter(self, key: OperatorKey) -> str:
        """The token of a new session."""
        token, now = self.visitor(), self.clock()
        while len(self._open) >= MOST:
            del self._open[next(iter(self._open))]
        self._open[token] = Session(key, now, now)
        return token

    def of(self, token: str) -> OperatorKey | None:
        """Whose session a token is of; None if it is over, or never was one."""
        session, now = self._open.get(token), self.clock()
        if session is None:
            return None
        if now - session.seen >= IDLE or now - session.begun >= LONGEST:
            self.leave(token)
            return None
        session.seen = now
        return session.key

    def leave(self, token: str) -> None:
        """Ends a session, if there is one."""
        self._open.pop(token, None)

    @staticmethod
    def visitor() -> str:
        """A token of a visitor."""
        return secrets.token_urlsafe(32)

    def word(self, token: str) -> str:
        """What every form of a visitor says, and nobody else can know."""
        return hmac.digest(self._secret, token.encode(), "sha256").hex()

    def is_word(self, word: str, token: str) -> bool:
        """Whether a form is this visitor's."""
        return bool(token) and hmac.compare_digest(word.encode(), self.word(token).encode())
