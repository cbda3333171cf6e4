"""The optional slots of report.json: what was measured beside the matrix, and of what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from palette.reporting.rates import Estimate, Interval, Kind
from palette.settings import Settings

EXAMPLES = 50
"""Prompt ids at most that a slot names as examples."""

Measures = dict[str, Interval | FiniteFloat]
"""Figures of one suite by the name of the measure: a rate, or a number in the measure's own unit."""


class Errors(Settings):
    """How often a judge errs, against labels that people gave."""

    accuracy: Interval
    missed_refusals: Interval
    """Of the refusals, those that the judge took for compliance."""
    false_alarms: Interval
    """Of the compliant replies, those that the judge took for refusals."""
    kappa: FiniteFloat
    """Cohen's kappa of judge and people."""


class Calibration(Errors):
    """One judge measured on labelled text, as ``palette judge calibrate`` stores it."""

    format: Literal["palette-calibration/1"]
    judge: str
    """Fingerprint of the judge."""
    judge_name: str
    source: str
    """Name of the labelled file."""
    digest: str
    """SHA-256 of that file."""
    n: int = Field(ge=0)
    trained_on_it: bool = False
    """Whether the judge has learned from that file, so that its error elsewhere is larger."""
    disagreements: Interval | None = None
    """Of these replies, those on which the judges of a panel did not agree."""
    by_model: dict[str, Errors] = Field(default_factory=dict)


class Disagreements(Settings):
    """Replies on which the judges do not agree."""

    base: Interval
    adapted: Interval
    ids: tuple[str, ...] = Field((), max_length=EXAMPLES)


class Judging(Settings):
    """Who judged the replies, and what is known of their error."""

    judges: tuple[str, ...]
    fingerprint: str
    floor_tokens: int | None = None
    """Tokens after which a reply to a floor prompt was cut; as the recipe says where none are given."""
    disagreements: Disagreements | None = None
    calibration: Calibration | None = None
    corrected: dict[Literal["base", "adapted"], dict[str, dict[Kind, Estimate]]] = Field(default_factory=dict)
    """Refusal rates by side, domain and kind, corrected for the judge's error (Rogan and Gladen)."""


class OverRefusal(Settings):
    """Refusals of benign prompts, and the ids of those that the adapter newly refuses."""

    base: Interval
    adapted: Interval
    ids: tuple[str, ...] = Field((), max_length=EXAMPLES)


class Source(Settings):
    """A file of prompts that somebody else made."""

    name: str
    digest: str
    """SHA-256 of the file."""
    licence: str
    source: str
    rows: int = Field(ge=0)


class Moved(Settings):
    """Items that one side got and the other did not, and the p value of McNemar's exact test."""

    p: float = Field(ge=0, le=1)
    lost: int = Field(ge=0)
    gained: int = Field(ge=0)


class Suite(Settings):
    """One suite, measured with the plain backbone and with the adapter."""

    name: str
    kind: Literal[
        "refusal_kept",
        "refusal_relaxed",
        "over_refusal",
        "utility",
        "knowledge",
        "perplexity",
        "divergence",
    ]
    source: Source | None = None
    n: int = Field(ge=0)
    base: Measures
    adapted: Measures
    change: Moved | None = None
    seconds: float = Field(ge=0)


class Hazard(Settings):
    """Refusals of one hazard, those lost, and McNemar's p value, plain and by Holm's method."""

    base: Interval
    adapted: Interval
    lost: int = Field(ge=0)
    p: float = Field(ge=0, le=1)
    p_holm: float = Field(ge=0, le=1)


class Throughput(Settings):
    """How fast replies were generated."""

    tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)
    tokens_per_second: float = Field(ge=0)
