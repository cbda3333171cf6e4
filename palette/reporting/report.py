"""report.json: assembled from counted outcomes, and checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from palette.authorisation import Role
from palette.errors import OutputError
from palette.evaluation.outcomes import (
    SIDES,
    Outcome,
    changes,
    domains,
    marked,
    select,
    share,
    tabulate,
)
from palette.files import read_json
from palette.reporting.schema import FORMAT, About, Annexes, OptionalSections, Provenance, Report

REPORT = Path("report.json")
WRONG = 8
"""Places at most that the sentence on a wrong report names."""


def assemble(
    about: About,
    outcomes: Sequence[Outcome],
    divergence: Mapping[str, float],
    verdict: Mapping[str, Any],
    provenance: Provenance,
    annexes: Annexes | None = None,
) -> dict[str, Any]:
    """The content of report.json; ``divergence`` in nats, ``verdict`` from the gate.

    A divergence that is not finite is written as null; the gate has then failed.

    Raises:
        OutputError: if the figures do not make a valid report.
    """
    tables = tabulate(outcomes)
    measured = {name: nats if isfinite(nats) else None for name, nats in divergence.items()}
    apart = {"base": dict.fromkeys(measured, 0.0), "adapted": measured}
    sides = {
        side: {
            "domains": tables[side],
            "utility": utility(outcomes, side),
            "divergence": apart[side],
        }
        for side in SIDES
    }
    report = {
        "format": FORMAT,
        **about.model_dump(mode="json"),
        **sides,
        "changes": changes(outcomes, provenance.seeds.get("run", 0)),
        "gate": dict(verdict),
        "search": None,
        "upper_bound": None,
        **OptionalSections().model_dump(mode="json"),
        **(annexes or Annexes()).model_dump(mode="json", exclude_none=True),
        "provenance": provenance.model_dump(mode="json"),
    }
    return validated(report)


def utility(outcomes: Sequence[Outcome], side: str) -> dict[str, Any]:
    """Correctness on benign prompts: all of them, and each domain that restricts nothing."""
    answers = marked(select(outcomes, Role.BENIGN))
    refusing = {outcome.domain for outcome in outcomes if outcome.role is not Role.BENIGN}

    def right(group: Sequence[Outcome]) -> dict[str, float | int]:
        return share(group, lambda o: getattr(o, f"correct_{side}")).to_json()

    return {
        "benign_correct": right(answers) if answers else None,
        "general": {
            domain: right(select(answers, Role.BENIGN, domain=domain))
            for domain in domains(answers)
            if domain not in refusing
        },
    }


def validated(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report itself, if it follows the schema of ``palette-report/1``.

    Raises:
        OutputError: if it does not; the sentence names the places.
    """
    return checked(report, None)


def read_report(path: Path) -> dict[str, Any]:
    """The report at ``path``, a file or a run's folder; slots that it is older than hold their defaults.

    Raises:
        OutputError: if there is none, or it breaks the schema; the sentence names the places.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        held = read_json(file)
    except RecursionError as error:
        raise OutputError("a report must be a JSON object", got="endless nesting", where=file) from error
    if not isinstance(held, dict):
        raise OutputError("a report must be a JSON object", got=type(held).__name__, where=file)
    return {**OptionalSections().model_dump(mode="json"), **checked(held, file)}


def checked(report: Mapping[str, Any], where: Path | None) -> dict[str, Any]:
    """The report itself, if it follows the schema of ``palette-report/1``.

    Raises:
        OutputError: if it does not.
    """
    try:
        Report.model_validate(dict(report))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'report'}: {each['msg']}" for each in error.errors()[:WRONG]
        )
        raise OutputError(f"a report must follow {FORMAT}", got=shown(wrong), where=where) from error
    return dict(report)


def shown(text: str) -> str:
    """A text from outside on one line, without control characters, and not endless."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 600 else f"{line[:600]}…"
