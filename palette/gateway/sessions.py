"""Sessions of the operator's page, in memory: they end with the process, with their key, and with time.

A visitor has a random token in a cookie before it enters and another one behind. The word against forged
forms is an HMAC of that token under a secret of the process, so that strangers take no memory.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from palette.gateway.operators import OperatorKey

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
