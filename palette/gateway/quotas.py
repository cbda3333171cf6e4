"""How often and how many at once: limits by key, by tenant, and of strangers by address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any

from palette.gateway.backend import busy
from palette.gateway.limits import Limits
from palette.gateway.refusals import Refused

REASON = "rate_limited"


class Quotas:
    """Counts requests of the last minute, and those that are answered now.

    ``storage`` is an address of the package ``limits``; by default the counts are this process's own, and
    several gateways each have theirs.
    """

    def __init__(self, limits: Limits, storage: str = "memory://") -> None:
        from limits import RateLimitItemPerMinute
        from limits.storage import storage_from_string
        from limits.strategies import MovingWindowRateLimiter

        self._limits = limits
        self._limiter: Any = MovingWindowRateLimiter(storage_from_string(storage))
        self._key = RateLimitItemPerMinute(limits.requests_a_minute)
        self._tenant = RateLimitItemPerMinute(limits.tenant_requests_a_minute)
        self._stranger = RateLimitItemPerMinute(limits.strangers_a_minute)
        self._open: Counter[str] = Counter()

    def stranger(self, address: str) -> None:
        """Counts a request without a known key.

        Raises:
            Refused: if there were too many from this address.
        """
        self._count(self._stranger, "address", address)

    def request(self, tenant: str, credential: str) -> None:
        """Counts a tenant's request.

        Raises:
            Refused: if there were too many with this key, or of this tenant.
        """
        self._count(self._key, "key", credential)
        self._count(self._tenant, "tenant", tenant)

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

    def _count(self, item: Any, kind: str, who: str) -> None:
        if self._limiter.hit(item, kind, who):
            return
        again = self._limiter.get_window_stats(item, kind, who).reset_time - time()
        raise Refused(
            429, REASON, "there were too many requests in the last minute", retry_after=max(1.0, again)
        )
