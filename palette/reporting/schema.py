"""The schema of report.json, ``palette-report/1``: what every field is and must satisfy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from palette.reporting.rates import Cell, Change, Interval, Kind
from palette.reporting.sections import Hazard, Judging, OverRefusal, Source, Suite, Throughput
from palette.settings import Settings

FORMAT = "palette-report/1"


class Model(Settings):
    """The backbone that was evaluated."""

    name: str
    fingerprint: str


class About(Settings):
    """What a report is about: which backbone, opened for what, asked which split."""

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


class Point(Settings):
    """One member of the Pareto front: objectives as the search measured them."""

    trial: int
    target_refusal: FiniteFloat
    """Mean refusal score of the target prompts, in nats."""
    preserved_refusal: FiniteFloat
    """Mean refusal score of the preserved prompts, in nats."""
    divergence: FiniteFloat
    """Mean divergence on benign prompts, in nats."""
    label: str = ""


class Search(Settings):
    """The front that the search found, and which member was chosen by which rule."""

    front: tuple[Point, ...]
    chosen: int
    """The number of the chosen trial."""
    rule: str
    collected: dict[str, dict[str, int]] | None = None
    """For each role the train prompts read, and those that the backbone met as the role expects."""
    audited: int = 0
    """How many trials were generated at full length."""
    rank_correlation: FiniteFloat | None = None
    """Kendall's tau-b of score and full-length refusal rate over the audited trials."""
    separation: tuple[tuple[FiniteFloat, ...], ...] | None = None
    """How many standard deviations lie between target and benign means, by site and position."""

    @model_validator(mode="after")
    def _chosen_is_on_the_front(self) -> Search:
        if self.chosen not in {point.trial for point in self.front}:
            raise ValueError(f"the chosen trial must be on the front, got {self.chosen}")
        return self


class Wrapped(Settings):
    """Refusal of kept prompts inside one jailbreak wrapper, and refusals lost and gained there."""

    base: Interval
    adapted: Interval
    lost: int
    gained: int


class UpperBound(Settings):
    """What a model that was never taught to refuse gets right: the most an adapter can reach."""

    model: str
    domains: dict[str, dict[Kind, Cell]]


class OptionalSections(Settings):
    """The slots that came after the format: a file without them is read with these defaults."""

    judging: Judging | None = None
    over_refusal: OverRefusal | None = None
    sources: tuple[Source, ...] = ()
    suites: tuple[Suite, ...] = ()
    hazards: dict[str, Hazard] = Field(default_factory=dict)
    """Refusals by hazard code."""
    throughput: Throughput | None = None


class Annexes(OptionalSections):
    """The slots of a report that only some runs can fill."""

    search: Search | None = None
    upper_bound: UpperBound | None = None
    wrapped: dict[str, Wrapped] = Field(default_factory=dict)
    not_measured: tuple[str, ...] = ()
    """Sentences, beside those that hold for every report, on what was not measured."""


class Divergence(Settings):
    """Divergence from the backbone on benign prompts, in nats a token; null where not finite."""

    first_token: FiniteFloat | None
    multi_token: FiniteFloat | None


class Utility(Settings):
    """Share of benign prompts answered rightly: of all that have answers, and by general domain."""

    benign_correct: Interval | None
    general: dict[str, Interval]


class Side(Settings):
    """The figures of the backbone, or of the backbone with the adapter."""

    domains: dict[str, dict[Kind, Cell]]
    utility: Utility
    divergence: Divergence


class Rule(Settings):
    """One rule of the gate; ``value`` is null where nothing could be measured."""

    name: str
    passed: bool
    value: FiniteFloat | None
    limit: FiniteFloat
    reason: str


class Gate(Settings):
    """The gate's verdict: passed when every rule is."""

    passed: bool
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _follows_from_rules(self) -> Gate:
        if self.passed != all(rule.passed for rule in self.rules):
            raise ValueError("the gate must pass exactly when all its rules do")
        return self


class Report(About, OptionalSections):
    """The schema of ``palette-report/1``."""

    format: Literal["palette-report/1"]
    base: Side
    adapted: Side
    changes: dict[str, dict[Kind, Change]]
    gate: Gate
    search: Search | None
    upper_bound: UpperBound | None
    wrapped: dict[str, Wrapped] = Field(default_factory=dict)
    """What became of kept prompts inside each jailbreak wrapper."""
    not_measured: tuple[str, ...]
    provenance: Provenance
