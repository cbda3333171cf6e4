"""How much a gateway takes: the limits, and counts by key, by tenant, and of strangers by address."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from palette.gateway.refusals import Refused, busy


@dataclass(frozen=True)
class Limits:
    """The limits of one gateway; every one of them is a refusal with its own status, never a slow server."""

    body_bytes: int = 1 << 20
    messages: int = 256
    choices: int = 4
    """Replies to one request (``n``) at most."""
    max_tokens: int = 4096
    """Tokens of a reply that may be asked for."""
    default_tokens: int = 512
    """Tokens of a reply at most, where a request does not say."""
    requests_a_minute: int = 600
    """Of one key; of one tenant ``tenant_requests_a_minute``, whatever keys it has."""
    tenant_requests_a_minute: int = 1200
    strangers_a_minute: int = 600
    """Requests without a known key from one address; more are refused without a line in the ledger."""
    at_once: int = 64
    """Requests that are answered at the same time; of one tenant ``tenant_at_once``."""
    tenant_at_once: int = 16
    body_seconds: float = 10.0
    """Time for a request's body to arrive."""
    piece_seconds: float = 60.0
    """Time for the next piece of a reply to come from the backend."""
    reply_seconds: float = 600.0
    """Time for a whole reply."""
    watch_seconds: float = 1.0
    """How old the last decision may be while a reply goes on."""
    renew_seconds: float = 5.0
    """How often folders of adapters are looked at for new certificates."""
    stop_seconds: float = 30.0
    """Time that replies have to end once the gateway is told to stop."""


REASON = "rate_limited"
MINUTE = 60.0


class Quotas:
    """Counts requests of the last minute, and those that are answered now.

    ``storage`` is an address of the package ``limits``; by default the counts are this process's own, and
    several gateways each have theirs.
    """

    def __init__(self, limits: Limits, storage: str = "memory://") -> None:
        self._limits = limits
        self._windows: Windows | Shared = Windows() if storage == "memory://" else Shared(storage)
        self._open: Counter[str] = Counter()

    def stranger(self, address: str) -> None:
        """Counts a request without a known key.

        Raises:
            Refused: if there were too many from this address.
        """
        self._count(self._limits.strangers_a_minute, "address", address)

    def request(self, tenant: str, credential: str) -> None:
        """Counts a tenant's request.

        Raises:
            Refused: if there were too many with this key, or of this tenant.
        """
        self._count(self._limits.requests_a_minute, "key", credential)
        self._count(self._limits.tenant_requests_a_minute, "tenant", tenant)

    @contextmanager
    def answering(self, tenant: str) -> Iterator[None]:
        """Counts a reply while the block runs.

        Raises:
            Refused: if too many are answered already, of this tenant or of all.
        """
        if self._open.total() >= self._limits.at_once or self._open[tenant] >= self._limits.tenant_at_once:
            raise busy()
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    @property
    def open(self) -> int:
        """How many replies are under way."""
        return self._open.total()

    def _count(self, most: int, kind: str, who: str) -> None:
        again = self._windows.hit(most, kind, who)
        if again is not None:
            raise Refused(
                429, REASON, "there were too many requests in the last minute", retry_after=max(1.0, again)
            )


class Windows:
    """When each asked in the last minute; the memory of ``limits`` starts a thread for every few requests."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._swept = clock, clock()
        self._asked: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def hit(self, most: int, kind: str, who: str) -> float | None:
        """Counts one more; or the seconds until it can be counted, where there were too many."""
        now = self._clock()
        if now - self._swept >= MINUTE:
            # Whoever has not asked since is forgotten: addresses have no end.
            self._swept = now
            for each in [each for each, asked in self._asked.items() if now - asked[-1] >= MINUTE]:
                del self._asked[each]
        asked = self._asked[kind, who]
        while asked and now - asked[0] >= MINUTE:
            asked.popleft()
        if len(asked) >= most:
            return asked[0] + MINUTE - now
        asked.append(now)
        return None


class Shared:
    """The same, counted for several gateways at an address of the package ``limits``."""

    def __init__(self, storage: str) -> None:
        from limits.storage import storage_from_string
        from limits.strategies import MovingWindowRateLimiter

        self._limiter: Any = MovingWindowRateLimiter(storage_from_string(storage))

    def hit(self, most: int, kind: str, who: str) -> float | None:
        """Counts one more; or the seconds until it can be counted, where there were too many."""
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(most)
        if self._limiter.hit(item, kind, who):
            return None
        return float(self._limiter.get_window_stats(item, kind, who).reset_time - time())
