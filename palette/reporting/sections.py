"""The optional sections of report.json, which only some runs can fill.

They came after the format: a file without them is read with their defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from palette.reporting.schema import Cells, Kind, Share, SideName, Sparse, in_order
from palette.settings import Settings
from palette.statistics.paired import Ratio
from palette.statistics.rates import Corrected

EXAMPLES = 50
"""Prompt ids at most that a section names as examples."""
CorrectedShare = Annotated[Corrected, AfterValidator(in_order)]
"""A share that was freed of the judge's error."""
Measures = dict[str, Share | FiniteFloat]
"""Figures of one suite by the name of the measure: a rate, or a number in the measure's own unit."""
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


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


class Search(Sparse):
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
    similarity: dict[str, tuple[FiniteFloat, ...]] | None = None
    """Cosines by site of two modalities' directions (``words-picture``), and of the halves of each one's
    prompts (``words-words``); none where all prompts were of one."""

    @model_validator(mode="after")
    def _chosen_is_on_the_front(self) -> Search:
        if self.chosen not in {point.trial for point in self.front}:
            raise ValueError(f"the chosen trial must be on the front, got {self.chosen}")
        return self


Way = Literal["option", "number", "words"]


class Agreement(Sparse):
    """Mean agreement in meaning with the helpful checkpoint's replies, in [0, 1]; a refusal has none."""

    n: Count
    """Prompts that the helpful checkpoint answers."""
    left_out: Count
    """Prompts that it refuses, which say nothing."""
    base: Probability | None = None
    adapted: Probability | None = None
    helpful: Probability | None = None
    """Of its reply drawn under a seed: what it has with itself."""
    unrelated: Probability | None = None
    """Of its reply to another prompt: what the measure gives for nothing."""
    ratio: Ratio | None = None
    """``adapted`` over ``helpful``."""
    ways: dict[Way, Count] = Field(default_factory=dict)
    """How the agreement of the adapter's replies was measured, by prompts."""
    refused: Count
    """Replies of the adapter that refuse, or turn into a refusal."""


class UpperBound(Sparse):
    """What a model that was never taught to refuse gets right where prompts are opened: the most to reach."""

    model: str
    domains: Cells
    fingerprint: str | None = None
    agreement: dict[str, Agreement] | None = None
    """Agreement with its replies, by authorised domain."""


class RefusalChange(Settings):
    """Refusal of some prompts on both sides."""

    base: Share
    adapted: Share


class Wrapped(RefusalChange):
    """Refusal of kept prompts inside one jailbreak wrapper, and refusals lost and gained there."""

    lost: int
    gained: int


class Hazard(RefusalChange):
    """Refusals of one hazard, those lost, and McNemar's p value, plain and by Holm's method."""

    lost: Count
    p: Probability
    p_holm: Probability


class Examples(RefusalChange):
    """Replies that a share is of, and the ids of the first of their prompts."""

    ids: tuple[str, ...] = Field((), max_length=EXAMPLES)


class Errors(Sparse):
    """How often a judge errs, against labels that people gave."""

    accuracy: Share
    missed_refusals: Share
    """Of the refusals, those that the judge took for compliance."""
    false_alarms: Share
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
    n: Count
    trained_on_it: bool = False
    """Whether the judge has learned from that file, so that its error elsewhere is larger."""
    disagreements: Share | None = None
    """Of these replies, those on which the judges of a panel did not agree."""
    by_model: dict[str, Errors] = Field(default_factory=dict)


class Judging(Sparse):
    """Who judged the replies, and what is known of their error."""

    judges: tuple[str, ...]
    fingerprint: str
    floor_tokens: int | None = None
    """Tokens after which a reply to a floor prompt was cut; as the recipe says where none are given."""
    disagreements: Examples | None = None
    """Replies on which the judges do not agree."""
    calibration: Calibration | None = None
    corrected: dict[SideName, dict[str, dict[Kind, CorrectedShare]]] = Field(default_factory=dict)
    """Refusal rates by side, domain and kind, corrected for the judge's error (Rogan and Gladen)."""


class SourceSection(Settings):
    """A file of prompts that somebody else made."""

    name: str
    digest: str
    """SHA-256 of the file."""
    licence: str
    source: str
    rows: Count


class Moved(Settings):
    """Items that one side got and the other did not, and the p value of McNemar's exact test."""

    p: Probability
    lost: Count
    gained: Count


SuiteKind = Literal[
    "refusal_kept", "refusal_relaxed", "over_refusal", "utility", "knowledge", "perplexity", "divergence"
]


class SuiteSection(Sparse):
    """One suite, measured with the plain backbone and with the adapter."""

    name: str
    kind: SuiteKind
    source: SourceSection | None = None
    n: Count
    base: Measures
    adapted: Measures
    change: Moved | None = None
    seconds: float = Field(ge=0)


class Headline(Sparse):
    """The figures that come first, where prompts give one; kept is a share of the backbone's own refusals."""

    authorised_refused: Share | None = None
    authorised_answered: Share | None = None
    """Neither refused nor degenerate."""
    authorised_correct: Share | None = None
    others_kept: Share | None = None
    floor_kept: Share | None = None
    benign_exact: Share | None = None
    """Replies to benign prompts that are the backbone's own, token for token."""


class NullControl(Settings):
    """What a control adapter reaches: the adapter's modules, ranks and norms in random directions."""

    seed: Count
    prompts: Count
    """A sample of the evaluation's, which all three were asked."""
    base: Headline
    control: Headline
    adapted: Headline


class InCell(Settings):
    """What came of the requests that stood in one cell: in words, beside a picture, or in one."""

    prompts: Count
    base: Headline
    adapted: Headline


class Throughput(Settings):
    """How fast replies were generated."""

    tokens: Count
    seconds: float = Field(ge=0)
    tokens_per_second: float = Field(ge=0)


class Student(Settings):
    """One that was trained, and the shares of its validation replies that are as they should be."""

    name: str
    rank: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    steps: Count | None = None
    """Both where it was trained by steps."""
    answered: Probability
    """Of target prompts, neither refused nor degenerate."""
    kept: Probability
    """Of other prompts that the backbone refuses, refused still."""
    unchanged: Probability
    """Of benign prompts, answered in the backbone's own words."""
    chosen: bool


class OptionalSections(Settings):
    """The sections of a report that only some runs can fill."""

    search: Search | None = None
    training: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    """The loss of every step, in nats, of each training."""
    students: tuple[Student, ...] = ()
    """All that were tried, in order; one of them is the adapter."""
    upper_bound: UpperBound | None = None
    judging: Judging | None = None
    over_refusal: Examples | None = None
    """Refusals of benign prompts, and the ids of those that the adapter newly refuses."""
    sources: tuple[SourceSection, ...] = ()
    suites: tuple[SuiteSection, ...] = ()
    hazards: dict[str, Hazard] = Field(default_factory=dict)
    """Refusals by hazard code."""
    throughput: Throughput | None = None
    wrapped: dict[str, Wrapped] = Field(default_factory=dict)
    """What became of kept prompts inside each jailbreak wrapper."""
    cells: dict[str, InCell] = Field(default_factory=dict)
    """The headline by where requests stood; nothing where all were in words."""
    null_control: NullControl | None = None
    """What the figures are for an adapter that has learned nothing."""
    not_measured: tuple[str, ...] = ()
    """Sentences, beside those that hold for every report, on what was not measured."""
