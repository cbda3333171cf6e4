"""report.json: the whole of it as one model, and read with its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, ValidationError, model_validator

from palette.errors import OutputError
from palette.files import read_json
from palette.reporting.schema import REPORT_FORMAT, About, Cells, Kind, Provenance, Share, Sparse
from palette.reporting.sections import OptionalSections, Search, UpperBound
from palette.settings import Settings
from palette.statistics.paired import Difference

REPORT = Path("report.json")
NAMED = 20
"""Prompts at most that a rule of the gate names."""
WRONG = 8
"""Places at most that the sentence on a wrong report names."""


def _within(change: Difference) -> Difference:
    if not all(-1 <= end <= 1 for end in (change.difference, change.low, change.high)):
        raise ValueError(f"a change of a share must be in [-1, 1], got {change}")
    return change


class Change(Sparse):
    """Refusals lost and gained, and the p value of McNemar's exact test."""

    lost: int
    gained: int
    p: FiniteFloat
    difference: Annotated[Difference, AfterValidator(_within)] | None = None
    """The change of the refusal rate, in points of share, with its paired bootstrap interval."""


class BenignDivergence(Settings):
    """Divergence from the backbone on benign prompts, in nats a token; null where not finite."""

    first_token: FiniteFloat | None
    multi_token: FiniteFloat | None


class BenignUtility(Settings):
    """Share of benign prompts answered rightly: of all that have answers, and by general domain."""

    benign_correct: Share | None
    general: dict[str, Share]


class Side(Settings):
    """The figures of the backbone, or of the backbone with the adapter."""

    domains: Cells
    utility: BenignUtility
    divergence: BenignDivergence


class Rule(Settings):
    """One rule of the gate; ``value`` is null where nothing could be measured."""

    name: str
    passed: bool
    value: FiniteFloat | None
    limit: FiniteFloat
    reason: str
    ids: tuple[str, ...] = Field((), max_length=NAMED)
    """Some of the prompts whose replies count against it."""

    @property
    def unmeasured(self) -> bool:
        """Whether it holds because there was nothing to measure it on: a pass of nothing."""
        return self.passed and self.value is None


class Gate(Settings):
    """The gate's verdict: passed when every rule is."""

    passed: bool
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _follows_from_rules(self) -> Gate:
        if self.passed != all(rule.passed for rule in self.rules):
            raise ValueError("the gate must pass exactly when all its rules do")
        return self


class Counted(About):
    """What was counted with the plain backbone and with the adapter, and the verdict on it."""

    base: Side
    adapted: Side
    changes: dict[str, dict[Kind, Change]]
    gate: Gate


class Report(OptionalSections, Counted):
    """The schema of ``palette-report/1``."""

    # As old as the format, so a file must have them.
    format: Literal["palette-report/1"]
    search: Search | None
    upper_bound: UpperBound | None
    not_measured: tuple[str, ...]
    provenance: Provenance

    def to_pandas(self, table: str = "domains") -> Any:
        """One of ``TABLES`` as a pandas data frame, a row a figure.

        Raises:
            OutputError: if there is no such table, or pandas is not installed.
        """
        if table not in TABLES:
            known = ", ".join(TABLES)
            raise OutputError(f"a table of a report must be one of {known}", got=clean(repr(table)))
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise OutputError(
                "a data frame needs pandas", got="none installed", remedy="pip install pandas"
            ) from error
        return DataFrame(list(TABLES[table](self)))


def _domain_rows(report: Report) -> Iterator[dict[str, Any]]:
    for name, side in (("base", report.base), ("adapted", report.adapted)):
        for domain, kinds in side.domains.items():
            for kind, cell in kinds.items():
                for measure, rate in cell:
                    if rate is not None:
                        yield {"side": name, "domain": domain, "kind": kind, "measure": measure, **vars(rate)}


def _change_rows(report: Report) -> Iterator[dict[str, Any]]:
    for domain, kinds in report.changes.items():
        for kind, change in kinds.items():
            interval = vars(change.difference) if change.difference else {}
            counts = {"lost": change.lost, "gained": change.gained, "p": change.p}
            yield {"domain": domain, "kind": kind, **counts, **interval}


TABLES: Mapping[str, Callable[[Report], Iterable[dict[str, Any]]]] = {
    "domains": _domain_rows,
    "changes": _change_rows,
    "rules": lambda report: (rule.model_dump() for rule in report.gate.rules),
    "front": lambda report: (point.model_dump() for point in report.search.front) if report.search else (),
}
"""The tables of a report: rates by side, domain, kind and measure; refusals lost and gained; the gate's
rules; and the search's Pareto front."""


def validated(content: Mapping[str, Any], where: Path | None = None) -> Report:
    """The report of plain values, such as a file's, if they follow the schema of ``palette-report/1``.

    Raises:
        OutputError: if they do not; the sentence names the places.
    """
    try:
        return Report.model_validate(dict(content))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'report'}: {each['msg']}" for each in error.errors()[:WRONG]
        )
        raise OutputError(
            f"a report must follow {REPORT_FORMAT}", got=clean(wrong, 600), where=where
        ) from error


def read_report(path: Path | str) -> Report:
    """The report at ``path``, a file or a run's folder; sections that it is older than hold their defaults.

    Raises:
        OutputError: if there is none, or it breaks the schema; the sentence names the places.
    """
    path = Path(path)
    file = path / REPORT if path.is_dir() else path
    if file.suffix != REPORT.suffix and file.is_file():
        # To delete it and run its stage again, as is said of a damaged artefact, would cost them their file.
        raise OutputError(
            f"a report must be a {REPORT}, or the folder of a run",
            got=f"a file of another kind, {clean(file.name)}",
            remedy=f"give the {REPORT} that palette evaluate writes, or its folder",
            where=file,
        )
    try:
        content = read_json(file)
    except RecursionError as error:
        raise OutputError("a report must be a JSON object", got="endless nesting", where=file) from error
    if not isinstance(content, dict):
        raise OutputError("a report must be a JSON object", got=type(content).__name__, where=file)
    return validated(content, file)


def clean(text: object, longest: int = 200) -> str:
    """A text from outside on one line: no control or invisible characters, and not endless."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= longest else f"{line[:longest]}…"
