"""What a measure found: figures of both sides, and of each prompt or question what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from palette.errors import OutputError
from palette.files import read_json
from palette.prompts.sources import Source
from palette.statistics import Rate, mcnemar

SUITE_FORMAT = "palette-suite/1"

Figures = dict[str, Any]
"""By the name of a figure: a rate with its interval, or a number."""


@dataclass(frozen=True)
class Item:
    """A prompt or a question and what came of it on each side; no text."""

    id: str
    digest: str
    """SHA-256 of the prompt, or of the question with its worked examples."""
    outcomes: tuple[str, ...]
    """The label or the answer on each side: the backbone's, and the adapter's if there is one."""
    counted: tuple[bool, ...]
    """Whether it was refused, or right, on each side."""
    expected: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        sides = dict(zip(("base", "adapted"), self.outcomes, strict=False))
        return {"id": self.id, "digest": self.digest, **sides}


@dataclass(frozen=True)
class Origin:
    """A file that somebody else made, and how many rows of it there are."""

    name: str
    digest: str
    """SHA-256 of the file, or of a folder's files."""
    licence: str
    source: str
    rows: int

    @classmethod
    def of(cls, source: Source) -> Origin:
        """The origin of a public set of prompts."""
        return cls(source.name, source.digest, source.licence, source.origin, source.rows)


@dataclass(frozen=True)
class Exchanges:
    """What was asked and replied, in memory only: the prompts' texts and each side's replies."""

    prompts: Sequence[str]
    replies: Sequence[Sequence[str]]
    benign: bool

    def __repr__(self) -> str:
        """How much was said, and nothing of it."""
        return f"Exchanges({len(self.prompts)} prompts)"


@dataclass(frozen=True)
class MeasureResult:
    """One measure of a suite."""

    name: str
    kind: str
    source: Origin | None
    n: int
    sides: Sequence[Figures]
    """The figures of the backbone, and of the adapter if there is one."""
    seconds: float = 0.0
    items: Sequence[Item] = ()
    change: Mapping[str, Any] | None = None
    command: str | None = None
    """lm-eval's own command for the same questions."""
    exchanges: Exchanges | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The line of ``suites`` in ``palette-report/1``."""
        base, *rest = self.sides
        return {
            "name": self.name,
            "kind": self.kind,
            "source": None if self.source is None else asdict(self.source),
            "n": self.n,
            "base": plain(base),
            "adapted": plain(rest[0]) if rest else {},
            "change": None if self.change is None else dict(self.change),
            "seconds": round(self.seconds, 3),
        }


def plain(figures: Figures) -> dict[str, Any]:
    """Figures as JSON."""
    return {name: one.to_json() if isinstance(one, Rate) else one for name, one in figures.items()}


def changed(items: Sequence[Item]) -> dict[str, Any] | None:
    """What was lost and gained from backbone to adapter, with McNemar's exact p; None without an adapter."""
    if not items or len(items[0].counted) < 2:
        return None
    lost = sum(one.counted[0] and not one.counted[1] for one in items)
    gained = sum(one.counted[1] and not one.counted[0] for one in items)
    return {"p": mcnemar(lost, gained), "lost": lost, "gained": gained}


def sections(results: Sequence[MeasureResult]) -> dict[str, Any]:
    """The sections ``suites`` and ``sources`` of ``palette-report/1`` that measures fill."""
    sources: dict[str, Any] = {}
    for one in results:
        if one.source is not None:
            sources.setdefault(one.source.digest, asdict(one.source))
    return {"suites": [one.to_json() for one in results], "sources": list(sources.values())}


def included(paths: Sequence[Path], measured: Mapping[str, str | None]) -> dict[str, Any]:
    """The sections ``suites`` and ``sources`` of a report out of suite results of what it measures.

    ``measured`` has the fingerprint of the ``backbone`` and the digest of the ``adapter``, None without
    one; what it leaves out is not compared.

    Raises:
        OutputError: if a file is missing, no suite's result, or one of another model or adapter.
    """
    suites: list[Any] = []
    sources: dict[str, Any] = {}
    for path in paths:
        held = read_json(path)
        if not isinstance(held, dict) or held.get("format") != SUITE_FORMAT:
            raise OutputError(
                f"a suite's result must be a {SUITE_FORMAT} file",
                got="another file",
                remedy="write one with palette suite",
                where=path,
            )
        stated = {"backbone": held["model"]["fingerprint"], "adapter": held["adapter"]}
        if other := [name for name, digest in measured.items() if stated[name] != digest]:
            raise OutputError(
                "a report includes suites of its own backbone and adapter",
                got=f"one of another {' and another '.join(other)}",
                remedy="measure it again with palette suite",
                where=path,
            )
        suites += held["suites"]
        sources |= {source["digest"]: source for source in held["sources"]}
    return {"suites": suites, "sources": list(sources.values())}
