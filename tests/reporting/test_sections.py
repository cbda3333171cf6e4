"""The optional sections: older files are read, unknown fields are not, and each section is shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from palette.errors import OutputError
from palette.reporting import pages
from palette.reporting.report import read_report, validated
from tests.reporting.bent import as_json, render

SECTIONS = (
    "judging",
    "over_refusal",
    "sources",
    "suites",
    "hazards",
    "throughput",
    "training",
    "wrapped",
    "null_control",
)
"""What came after the format."""


def test_a_report_older_than_its_sections_is_valid_and_is_read_with_defaults(
    report: dict[str, Any], tmp_path: Path
) -> None:
    old = {name: value for name, value in report.items() if name not in SECTIONS}
    assert {name: as_json(old)[name] for name in old} == old
    (tmp_path / "report.json").write_text(json.dumps(old))
    report_read = read_report(tmp_path)
    read = report_read.model_dump(mode="json")
    assert {name: read[name] for name in SECTIONS} == {
        "judging": None,
        "over_refusal": None,
        "sources": [],
        "suites": [],
        "hazards": {},
        "throughput": None,
        "training": {},
        "wrapped": {},
        "null_control": None,
    }
    assert {name: read[name] for name in old} == old
    for page in (render(old), pages.render(report_read)):
        assert "Gate passed" in page
        assert "How far the judge can be believed" not in page


def test_a_report_is_read_from_its_file_or_its_folder(full: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(full))
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == validated(full)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "an artefact must exist, got no such file"),
        ("{", "an artefact must be valid JSON"),
        ("[]", "a report must be a JSON object, got list"),
        ("{}", "a report must follow palette-report/1, got format: Field required; model: Field required"),
        (b"\xff\xfe", "an artefact must be valid JSON"),
        ("[" * 100_000, "a report must be a JSON object, got endless nesting"),
    ],
)
def test_what_is_no_report_is_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes | None, sentence: str
) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(OutputError) as caught:
        read_report(path)
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(f"({path})")
    assert "\n" not in str(caught.value)


def test_the_sentence_on_a_wrong_report_is_short_and_shows_no_control_character(
    report: dict[str, Any], tmp_path: Path
) -> None:
    broken = {**report, **{f"\x1b[31m{i}\n": i for i in range(500)}}
    (tmp_path / "report.json").write_text(json.dumps(broken))
    with pytest.raises(OutputError) as caught:
        read_report(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_figure_must_be_finite(report: dict[str, Any], tmp_path: Path, text: str) -> None:
    broken = copy.deepcopy(report)
    broken["adapted"]["divergence"]["multi_token"] = float(text.replace("inity", ""))
    broken["gate"]["rules"][0]["value"] = float(text.replace("inity", ""))
    (tmp_path / "report.json").write_text(json.dumps(broken))
    assert text in (tmp_path / "report.json").read_text()
    with pytest.raises(OutputError, match=r"divergence\.multi_token.*finite number.*rules\.0\.value"):
        read_report(tmp_path)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every object of a report in which a field can be put."""
    found = [path] if isinstance(value, dict) else []
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return found + [place for key, one in children for place in places(one, (*path, key))]


FREE = {
    ("hazards",), ("judging", "calibration", "by_model"), ("judging", "corrected", "base"),
    ("judging", "corrected", "adapted"),
}  # fmt: skip
"""Objects whose keys are names."""


def test_no_object_of_a_section_takes_an_unknown_field(
    full: dict[str, Any], sections: dict[str, Any]
) -> None:
    tried = [path for path in places(sections) if path and path not in FREE]
    tried = [path for path in tried if path[0] != "suites" or path[-1] not in ("base", "adapted")]
    assert len(tried) > 25
    for path in tried:
        broken = copy.deepcopy(full)
        target: Any = broken
        for key in path:
            target = target[key]
        target["surprise"] = {}
        with pytest.raises(OutputError, match="surprise"):
            validated(broken)


@pytest.mark.parametrize("place", [("judging", "disagreements"), ("over_refusal",)])
def test_ids_are_fifty_at_most(full: dict[str, Any], place: tuple[str, ...]) -> None:
    for count, fits in ((50, True), (51, False)):
        changed = copy.deepcopy(full)
        target = changed
        for key in place:
            target = target[key]
        target["ids"] = [str(i) for i in range(count)]
        if fits:
            validated(changed)
            continue
        with pytest.raises(OutputError, match="at most 50 items"):
            validated(changed)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hazards": {"prv": {"p_holm": 1.5}}}, "less than or equal to 1"),
        ({"suites": [{"kind": "vibes"}]}, "suites.0.kind"),
        ({"judging": {"calibration": {"format": "palette-calibration/9"}}}, "judging.calibration.format"),
        ({"throughput": {"tokens": -1}}, "throughput.tokens"),
    ],
)
def test_values_outside_their_range_are_refused(
    full: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    def lay(over: Any, under: Any) -> Any:
        if isinstance(over, dict) and isinstance(under, dict):
            return {**under, **{key: lay(value, under.get(key)) for key, value in over.items()}}
        if isinstance(over, list) and isinstance(under, list):
            return [lay(one, other) for one, other in zip(over, under, strict=False)]
        return over

    with pytest.raises(OutputError, match=sentence):
        validated(lay(change, full))


def test_every_section_is_shown(full: dict[str, Any]) -> None:
    page = render(full)
    for said in (
        "Replies were judged by rules and trained",
        "cut after 19 tokens",
        "labels.csv",
        "Rogan and Gladen",
        "before, corrected",
        "On 3.0\u202f% (1.0 to 8.5\u202f%, 3 of 100) before",
        "<code>medical-7</code>",
        "Newly refused, by id (1 shown, 50 at most)",
        "<code>sums-4</code>",
        "role play",
        "prv",
        "p, Holm",
        "contrast",
        "benign look-alikes, 100 items, 12\u202fs",
        "1 lost, 1 gained",
        "bits per byte",
        "CC-BY-4.0",
        "What an adapter that has learned nothing reaches",
        "on the same 110 prompts",
        "Refusals kept in other domains",
        "first from 4 to 1 nats in 3 steps",
        "4096 tokens in 2.0\u202fs, 2048 a second",
    ):
        assert said in page, said
    assert page.index("Gate passed") < page.index("How far the judge") < page.index("What was not measured")


def test_what_an_empty_section_means_is_said(report: dict[str, Any], full: dict[str, Any]) -> None:
    empty, filled = render(report), render(full)
    for sentence in (
        "error was not measured here",
        "Refusals were not counted by hazard.",
        "by no public suite",
        "Jailbreak wrappers were not tried.",
        "no figure has a null control",
        "Over-refusal was counted on this folder",
    ):
        assert sentence in empty
        assert sentence not in filled
    uncorrected = copy.deepcopy(full)
    uncorrected["judging"]["corrected"] = {}
    assert "not corrected for it" in render(uncorrected)
    learned = copy.deepcopy(full)
    learned["judging"]["calibration"] |= {"trained_on_it": True, "disagreements": None}
    assert "The judge has learned from this file." in render(learned)
    assert "measured on text that it has learned from" in render(learned)
    alone = copy.deepcopy(full)
    alone["judging"] |= {"calibration": None, "disagreements": None, "corrected": {}}
    page = render(alone)
    assert "was not measured on labelled text" in page
    assert "Where the judges disagree" not in page
    none = copy.deepcopy(full)
    none["over_refusal"]["ids"] = []
    assert "No benign prompt is newly refused." in render(none)


def test_a_limit_is_said_once(report: dict[str, Any]) -> None:
    assert render(report).count("Perplexity was not measured.") == 1


def test_a_tiny_divergence_is_not_spelt_out(report: dict[str, Any]) -> None:
    tiny = copy.deepcopy(report)
    for value, said in ((7.2e-5, "under 0.0001"), (0.0, "0"), (0.00012, "0.00012")):
        tiny["adapted"]["divergence"]["multi_token"] = value
        assert f"Divergence, all tokens: {said}\u202fnats" in render(tiny)


def test_a_tiny_p_is_not_spelt_out(full: dict[str, Any]) -> None:
    tiny = copy.deepcopy(full)
    tiny["hazards"]["prv"] |= {"p": 1e-29, "p_holm": 4e-29}
    page = render(tiny)
    assert "&lt;\u00a00.0001" in page
    assert "e-29" not in page
