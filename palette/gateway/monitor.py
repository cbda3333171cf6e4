"""What Prometheus reads: requests, decisions, what tenants ask and are told, and entries that are missing.

Whether a request looks like one of the floor is told by pieces of its words, without a model, and nothing is
kept. A piece is a word, or three letters of one. It speaks for the floor or against it by its log-odds among
known prompts, and a sentence by the mean of its pieces, in nats. It is for an operator's figures alone, and
opens and closes nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from palette.gateway.asking import Asked
from palette.prompts.rows import normalised_text


class Monitor:
    """The figures of one gateway, in a registry of its own.

    A reply is judged by the rules that need no model, a request by its words. A tenant who tries what it may
    not shows by two shares: of requests that look like the floor's, and of refused replies, since an
    authorised adapter refuses what its tenant is not authorised for, the floor before all.
    """

    READ: ClassVar[int] = 2000
    """Characters of a reply that are judged; a model that declines does so early."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        from palette.judging.rules import RuleJudge

        self.registry = prometheus.CollectorRegistry()
        self._judge = RuleJudge()
        self._requests = prometheus.Counter(
            "palette_requests",
            "Requests by route and status",
            ["route", "status"],
            registry=self.registry,
        )
        self._entries = prometheus.Counter(
            "palette_ledger_entries",
            "Entries of the ledger by kind, reason and status",
            ["kind", "reason", "status"],
            registry=self.registry,
        )
        self._lost = prometheus.Counter(
            "palette_ledger_failures", "Entries that the ledger did not take", registry=self.registry
        )
        self._asked = prometheus.Counter(
            "palette_asked",
            "Requests that were read, by tenant and by what they look like: floor, other",
            ["tenant", "looks"],
            registry=self.registry,
        )
        self._replies = prometheus.Counter(
            "palette_replies",
            "Replies by tenant and by what they are: answered, refused, broken",
            ["tenant", "verdict"],
            registry=self.registry,
        )
        self._cut = prometheus.Counter(
            "palette_replies_cut",
            "Replies that did not come to their end, by tenant and reason",
            ["tenant", "reason"],
            registry=self.registry,
        )
        self._open = prometheus.Gauge("palette_replies_open", "Replies under way", registry=self.registry)
        self._stale = prometheus.Gauge(
            "palette_files_not_taken",
            "New certificates, revocation lists and JWKS that do not hold, while what was there before does",
            registry=self.registry,
        )
        self._overhead = prometheus.Histogram(
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


FALSE = 0.01
"""The share of other prompts, held out, that may be taken for ones of the floor."""
READ = 4000
"""Characters of what users say in a request that are looked at, the last ones."""
_SENTENCE = re.compile(r"[.?!\n]+")


@dataclass(frozen=True)
class Lookalikes:
    """What pieces say, in nats, and the mean from which on a sentence looks like one of the floor."""

    nats: Mapping[str, float] = field(repr=False)
    least: float

    def score(self, text: str) -> float:
        """The highest mean of a text's sentences, in nats."""
        means = [
            sum(self.nats.get(each, 0.0) for each in found) / len(found)
            for sentence in _SENTENCE.split(text)
            if (found := pieces(sentence))
        ]
        return max(means, default=-math.inf)

    def __call__(self, asked: Asked) -> bool:
        """Whether what the user says in a request looks like a prompt of the floor."""
        said = "\n".join(one.content for one in asked.messages if one.role == "user")
        return self.score(said[-READ:]) >= self.least


def learnt(floor: Iterable[str], others: Iterable[str], held_out: Sequence[str]) -> Lookalikes | None:
    """What tells the floor's prompts from others, at ``FALSE`` of others that are held out.

    None where there are none of one of the three.
    """
    for_it, ones = _counted(floor)
    against, rest = _counted(others)
    if not (ones and rest and held_out):
        return None
    nats = {
        each: math.log((for_it[each] + 0.5) / (ones + 1)) - math.log((against[each] + 0.5) / (rest + 1))
        for each in sorted(for_it | against)
    }
    bare = Lookalikes(nats, 0.0)
    highest = sorted(map(bare.score, held_out), reverse=True)[int(FALSE * len(held_out))]
    return Lookalikes(nats, math.nextafter(highest, math.inf))


def pieces(text: str) -> set[str]:
    """The words of a text, and every three letters of each with its two ends."""
    found = set(normalised_text(text).split())
    return found | {three for word in found for three in _threes(f" {word} ")}


def _threes(word: str) -> Iterator[str]:
    return (word[at : at + 3] for at in range(len(word) - 2))


def _counted(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """In how many texts each piece is, and how many texts there are."""
    found, count = Counter[str](), 0
    for text in texts:
        found.update(pieces(text))
        count += 1
    return found, count
