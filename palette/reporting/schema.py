"""The schema of report.json, ``palette-report/1``: the parts that every report has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, FiniteFloat, model_serializer

from palette.settings import Settings
from palette.statistics.rates import Rate

REPORT_FORMAT: Final = "palette-report/1"

Kind = Literal["restricted", "floor", "benign"]
SideName = Literal["base", "adapted"]


def in_order(rate: Any) -> Any:
    """The rate itself, with its interval.

    Raises:
        ValueError: if they are not in order in [0, 1].
    """
    k, n = getattr(rate, "k", 0), getattr(rate, "n", 0)
    if not (0 <= rate.low <= rate.rate <= rate.high <= 1 and 0 <= k <= n):
        raise ValueError(f"low, rate and high must be in order in [0, 1] and k at most n, got {rate}")
    return rate


Share = Annotated[Rate, AfterValidator(in_order)]


class Sparse(Settings):
    """A part of a report that leaves what was not measured out of its JSON."""

    @model_serializer(mode="wrap")
    def _measured(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Cell(Sparse):
    """Refusal and babble of one kind of prompts, and correctness where they have answers."""

    refusal: Share
    correct: Share | None = None
    degenerate: Share | None = None
    """Babble or nothing, and not the right answer."""
    known: Share | None = None
    """Of the backbone: answers that it gives once its reply is made to begin as they do."""


Cells = dict[str, dict[Kind, Cell]]
"""``domain → kind → cell``."""


class Model(Settings):
    """The backbone that was evaluated."""

    name: str
    fingerprint: str


class About(Settings):
    """What a report is about: which backbone, opened for what, asked which split."""

    format: Literal["palette-report/1"] = REPORT_FORMAT
    model: Model
    authorised: tuple[str, ...]
    split: str


class Provenance(Settings):
    """Where the figures come from, so that somebody else can get them again."""

    recipe: dict[str, Any]
    seeds: dict[str, int]
    versions: dict[str, str]
    """Library versions."""
    prompts: dict[str, str]
    """Fingerprints of the prompts, by split or file."""
    floor: str
    """Digest of the floor."""
    judge: str
    """Fingerprint of the judge."""
    device: str
    seconds: dict[str, FiniteFloat]
    """Seconds by stage."""
    adapter: str | None = None
    """Digest of the adapter; none where the bare backbone was measured."""
