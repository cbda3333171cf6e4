"""What only reads a run works where nothing can be written; what writes says so in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import palette
from palette.errors import OutputError
from palette.files import write_text
from palette.reporting.report import read_report
from palette.stages.summary import PAGE
from palette.working import working
from tests.fixtures.crowds import crowd, good
from tests.fixtures.sealed import sealed
from tests.reporting.conftest import failing, parts, report
from tests.stages.test_push import laid

__all__ = ["crowd", "failing", "good", "parts", "report"]


@pytest.fixture
def run(tmp_path: Path, report: dict[str, Any]) -> Path:
    return laid(tmp_path / "runs" / "mine", report)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


READING: dict[str, Callable[[Path, Path], Any]] = {
    "runs": lambda run, _: "mine" in {each["name"] for each in palette.runs(run.parent)["runs"]},
    "compare": lambda run, out: palette.compare(run, run, out),
    "summary": lambda run, out: Path(palette.summary(run, out)["page"]).is_file(),
    "inspect": lambda run, _: palette.inspect(run),
    "report": lambda run, _: read_report(run).gate.passed,
}


@pytest.mark.parametrize("name", READING)
def test_what_reads_a_run_needs_no_writable_folder(name: str, run: Path, tmp_path: Path) -> None:
    before = files(run)
    with sealed(run.parent):
        assert READING[name](run, tmp_path / "out")
    assert files(run) == before


def hold(folder: Path) -> None:
    with working(folder):
        pass


WRITING: dict[str, Callable[[Path], Any]] = {
    "summary": palette.summary,
    "compare": lambda run: palette.compare(run, run, run),
    "lock": hold,
    "a folder to be made": lambda run: hold(run / "new" / "one"),
    "file": lambda run: write_text(run / "file", "words"),
}


@pytest.mark.parametrize("name", WRITING)
def test_what_writes_says_that_it_cannot_and_the_remedy_helps(name: str, run: Path) -> None:
    before = files(run)
    with sealed(run.parent), pytest.raises(OutputError) as caught:
        WRITING[name](run)
    said = str(caught.value)
    assert "got Read-only file system; make its folder writable, or choose another" in said
    assert "\n" not in said
    assert "free space" not in said
    assert files(run) == before
    WRITING[name](run)


def test_the_page_of_a_run_is_written_elsewhere_as_is_advised(run: Path, tmp_path: Path) -> None:
    with sealed(run.parent):
        palette.summary(run, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / PAGE).is_file()
