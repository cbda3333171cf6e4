"""What Prometheus reads: requests, decisions, what tenants ask and are told, and entries that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class Monitor:
    """The figures of one gateway, in a registry of its own.

    A reply is judged by the rules that need no model, a request by its words. A tenant who tries what it may
    not shows by two shares: of requests that look like the floor's, and of refused replies, since an
    authorised adapter refuses what its tenant is not authorised for, the floor before all.
    """

    READ: ClassVar[int] = 2000
    """Characters of a reply that are judged; a model that declines does so early."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        from palette.judging.rules import RuleJudge

        self.registry = CollectorRegistry()
        self._judge = RuleJudge()
        self._requests = Counter(
            "palette_requests",
            "Requests by route and status",
            ["route", "status"],
            registry=self.registry,
        )
        self._entries = Counter(
            "palette_ledger_entries",
            "Entries of the ledger by kind, reason and status",
            ["kind", "reason", "status"],
            registry=self.registry,
        )
        self._lost = Counter(
            "palette_ledger_failures", "Entries that the ledger did not take", registry=self.registry
        )
        self._asked = Counter(
            "palette_asked",
            "Requests that were read, by tenant and by what they look like: floor, other",
            ["tenant", "looks"],
            registry=self.registry,
        )
        self._replies = Counter(
            "palette_replies",
            "Replies by tenant and by what they are: answered, refused, broken",
            ["tenant", "verdict"],
            registry=self.registry,
        )
        self._cut = Counter(
            "palette_replies_cut",
            "Replies that did not come to their end, by tenant and reason",
            ["tenant", "reason"],
            registry=self.registry,
        )
        self._open = Gauge("palette_replies_open", "Replies under way", registry=self.registry)
        self._stale = Gauge(
            "palette_files_not_taken",
            "New certificates, revocation lists and JWKS that do not hold, while what was there before does",
            registry=self.registry,
        )
        self._overhead = Histogram(
            "palette_admission_seconds",
            "Time from a request's first byte to its decision in the ledger",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5, 2.0),
            registry=self.registry,
        )

    def requested(self, route: str, status: int) -> None:
        """Counts a request; ``route`` is a route's own path, never what a client wrote."""
        self._requests.labels(route, str(status)).inc()

    def recorded(self, kind: str, reason: str, status: int) -> None:
        """Counts an entry of the ledger."""
        self._entries.labels(kind, reason, str(status)).inc()

    def lost(self) -> None:
        """Counts an entry that the ledger did not take."""
        self._lost.inc()

    def admitted(self, seconds: float) -> None:
        """Notes how long a request took up to its decision."""
        self._overhead.observe(seconds)

    def asked(self, tenant: str, *, floor: bool) -> None:
        """Counts a request that was read by what it looks like."""
        self._asked.labels(tenant, "floor" if floor else "other").inc()

    def replied(self, tenant: str, texts: Mapping[int, str], reason: str) -> None:
        """Counts a request's replies by what they are, and that it was cut short."""
        if reason != "finished":
            self._cut.labels(tenant, reason).inc()
        for text in texts.values():
            label = self._judge.verdict(text).label
            verdict = "refused" if label.refused else "broken" if label.broken else "answered"
            self._replies.labels(tenant, verdict).inc()

    def page(self, replies_open: int, stale: int = 0) -> bytes:
        """The figures in Prometheus' text format; ``stale`` are files that are not taken."""
        from prometheus_client import generate_latest

        self._open.set(replies_open)
        self._stale.set(stale)
        return generate_latest(self.registry)
