"""The compare verb on files and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palette.errors import OutputError
from palette.stages.compare import compare, labels
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report

__all__ = ["crowd", "failing", "good", "parts", "report"]


@pytest.fixture
def runs(tmp_path: Path, report: dict[str, Any], failing: dict[str, Any]) -> tuple[Path, Path]:
    for name, one in (("first", report), ("second", failing)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(one))
    return tmp_path / "first", tmp_path / "second"


def test_folders_and_files_are_compared_and_the_page_is_written(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    found = compare(runs[0], runs[1] / "report.json", tmp_path / "out")
    assert (found.a.label, found.b.label) == ("first", "second")
    assert found.b.path == str(runs[1] / "report.json")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "first and second" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.html"]


def test_without_an_output_nothing_is_written(runs: tuple[Path, Path]) -> None:
    compare(*runs)
    assert [path.name for folder in runs for path in folder.iterdir()] == ["report.json"] * 2


def test_a_report_that_cannot_be_read_is_named(runs: tuple[Path, Path]) -> None:
    (runs[1] / "report.json").write_text("{")
    with pytest.raises(OutputError, match=r"valid JSON.*second/report.json"):
        compare(*runs)


def test_a_recipe_in_the_place_of_a_report_is_refused_with_a_remedy_that_helps(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "medical.yaml"
    recipe.write_text("authorise: [medical]\n")
    with pytest.raises(OutputError) as caught:
        compare(runs[0], recipe)
    said = str(caught.value)
    assert said.startswith(
        "a report must be a report.json, or the folder of a run, got a file of another kind"
    )
    assert "delete" not in said
    remedy = "give the report.json that palette evaluate writes, or its folder"
    assert f"; {remedy} ({recipe})" in said
    for one in (runs[1], runs[1] / "report.json"):
        compare(runs[0], one)
    assert recipe.is_file()


def test_labels_tell_two_reports_apart(tmp_path: Path) -> None:
    assert labels(tmp_path / "a" / "report.json", tmp_path / "b" / "report.json") == ("a", "b")
    one, other = tmp_path / "x" / "run", tmp_path / "y" / "run"
    for folder in (one, other):
        folder.mkdir(parents=True)
    assert labels(one, other) == (str(one), str(other))
