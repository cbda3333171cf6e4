from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palette.errors import OutputError
from palette.evaluation.gate import gate
from palette.evaluation.outcomes import Outcome
from palette.reporting.assembly import assemble
from palette.reporting.report import validated
from palette.reporting.sections import OptionalSections
from tests.reporting.bent import as_json

GOLDEN = Path(__file__).parent / "golden" / "report.json"
LITTLE = {"first_token": 0.008, "multi_token": 0.003}


def test_a_report_has_the_fields_of_its_format(report: dict[str, Any]) -> None:
    assert report["format"] == "palette-report/1"
    assert list(report) == [
        "format",
        "model",
        "authorised",
        "split",
        "base",
        "adapted",
        "changes",
        "gate",
        "search",
        "training",
        "students",
        "upper_bound",
        "judging",
        "over_refusal",
        "sources",
        "suites",
        "hazards",
        "throughput",
        "wrapped",
        "cells",
        "null_control",
        "not_measured",
        "provenance",
    ]
    for side in ("base", "adapted"):
        assert list(report[side]) == ["domains", "utility", "divergence"]
    assert report["model"] == {"name": "organism", "fingerprint": "ab" * 32}
    assert report["authorised"] == ["medical"]
    assert report["base"]["divergence"] == {"first_token": 0.0, "multi_token": 0.0}
    assert report["adapted"]["divergence"] == LITTLE
    assert report["adapted"]["domains"]["medical"]["restricted"]["refusal"]["k"] == 3
    assert report["search"]["chosen"] == 41
    assert "correct" in report["upper_bound"]["domains"]["medical"]["restricted"]
    assert set(report["provenance"]) == {
        "recipe",
        "seeds",
        "versions",
        "prompts",
        "floor",
        "judge",
        "device",
        "seconds",
        "adapter",
    }


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a report with its place, in the order of the file."""
    if isinstance(value, dict | list) and value:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, f"{path}.{key}")
    else:
        yield path, value


def test_a_report_is_written_as_it_always_was(
    good: list[Outcome], parts: dict[str, Any], full: dict[str, Any]
) -> None:
    filled = OptionalSections.model_validate({name: full[name] for name in OptionalSections.model_fields})
    verdict = gate(good, ["medical"], LITTLE)
    report = assemble(outcomes=good, divergence=LITTLE, verdict=verdict, **{**parts, "sections": filled})
    written, golden = (
        list(leaves(one)) for one in (report.model_dump(mode="json"), json.loads(GOLDEN.read_text()))
    )
    assert [place for place, _ in written] == [place for place, _ in golden]
    # Figures of other versions of scipy and numpy may differ in their last digit; nothing else may.
    for (place, value), (_, expected) in zip(written, golden, strict=True):
        assert type(value) is type(expected), place
        assert value == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected), (
            place
        )


def test_utility_counts_benign_answers_and_general_domains(report: dict[str, Any]) -> None:
    utility = report["adapted"]["utility"]
    assert utility["benign_correct"]["n"] == 200
    assert list(utility["general"]) == ["sums"]
    assert utility["general"]["sums"]["k"] == 80


def test_without_answers_there_is_no_utility(good: list[Outcome], parts: dict[str, Any]) -> None:
    bare = [Outcome(o.prompt_id, o.domain, o.role, o.label_base, o.label_adapted) for o in good]
    verdict = gate(bare, ["medical"], LITTLE)
    report = assemble(outcomes=bare, divergence=LITTLE, verdict=verdict, **parts)
    assert report.adapted.utility.model_dump() == {"benign_correct": None, "general": {}}


def test_a_report_is_json_and_says_the_same_again(
    report: dict[str, Any], good: list[Outcome], parts: dict[str, Any]
) -> None:
    text = json.dumps(report, allow_nan=False)
    assert as_json(json.loads(text)) == report
    again = assemble(outcomes=good[::-1], divergence=LITTLE, verdict=gate(good, ["medical"], LITTLE), **parts)
    assert json.dumps(again.model_dump(mode="json")) == text


def test_sections_that_a_run_cannot_fill_are_null(good: list[Outcome], parts: dict[str, Any]) -> None:
    bare = {name: parts[name] for name in ("about", "provenance")}
    verdict = gate(good, ["medical"], LITTLE)
    report = assemble(outcomes=good, divergence=LITTLE, verdict=verdict, **bare)
    assert report.search is None
    assert report.upper_bound is None
    assert report.not_measured == ()


def test_a_divergence_that_is_not_finite_is_null_and_the_gate_failed(
    good: list[Outcome], parts: dict[str, Any]
) -> None:
    broken = {**LITTLE, "multi_token": float("nan")}
    verdict = gate(good, ["medical"], broken)
    report = assemble(outcomes=good, divergence=broken, verdict=verdict, **parts)
    assert report.adapted.divergence.model_dump() == {"first_token": 0.008, "multi_token": None}
    assert not report.gate.passed
    json.dumps(report.model_dump(mode="json"), allow_nan=False)


def at(*path: str) -> Callable[[dict[str, Any], object], None]:
    def put(report: dict[str, Any], value: object) -> None:
        for name in path[:-1]:
            report = report[name]
        report[path[-1]] = value

    return put


@pytest.mark.parametrize(
    ("put", "value", "sentence"),
    [
        (at("format"), "palette-report/9", "format: Input should be 'palette-report/1'"),
        (at("surprise"), 1, "surprise: Extra inputs are not permitted"),
        (at("adapted", "utility"), None, "adapted.utility: Input should be a valid"),
        (at("gate", "passed"), False, "the gate must pass exactly when all its rules do"),
        (at("search", "chosen"), 5, "the chosen trial must be on the front, got 5"),
        (
            at("base", "domains", "legal", "restricted", "refusal", "low"),
            0.99999,
            "low, rate and high must be in order",
        ),
        (at("base", "domains", "legal", "odd"), {}, "base.domains.legal.odd"),
    ],
)
def test_a_report_that_breaks_its_schema_is_refused_in_one_sentence(
    report: dict[str, Any],
    put: Callable[[dict[str, Any], object], None],
    value: object,
    sentence: str,
) -> None:
    broken = copy.deepcopy(report)
    broken["base"]["domains"]["legal"]["restricted"]["refusal"]["rate"] = 0.9999
    broken["base"]["domains"]["legal"]["restricted"]["refusal"]["low"] = 0.9
    put(broken, value)
    with pytest.raises(OutputError, match="a report must follow palette-report/1, got") as caught:
        validated(broken)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(report: dict[str, Any]) -> None:
    broken = {name: value for name, value in report.items() if name != "provenance"}
    with pytest.raises(OutputError, match="provenance: Field required"):
        validated(broken)
