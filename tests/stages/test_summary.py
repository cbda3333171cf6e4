"""The summary verb on runs, files and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import palette
from palette.errors import AdapterError, OutputError
from palette.stages.summary import CASE, PAGE, summary
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report
from tests.stages.test_push import laid

__all__ = ["crowd", "failing", "good", "parts", "report"]


@pytest.fixture
def run(tmp_path: Path, report: dict[str, Any]) -> Path:
    return laid(tmp_path / "run", report)


def test_the_page_lies_in_the_run_or_where_it_is_told(run: Path, tmp_path: Path) -> None:
    assert summary(run)["page"] == str(run / PAGE)
    for given in (str(run), run / "report.json"):
        found = palette.summary(given, str(tmp_path / "out"), safety_case=True)
        assert found["page"] == str(tmp_path / "out" / CASE)
        assert (found["passed"], found["authorised"]) == (True, ["medical"])
    assert "Safety case" in (tmp_path / "out" / CASE).read_text().replace("safety", "Safety")
    first = (run / PAGE).read_bytes()
    summary(run)
    assert (run / PAGE).read_bytes() == first


def test_nobody_signs_for_another_adapter(tmp_path: Path, run: Path, failing: dict[str, Any]) -> None:
    other = laid(tmp_path / "other", failing, seed=1)
    (run / "adapter_model.safetensors").write_bytes((other / "adapter_model.safetensors").read_bytes())
    with pytest.raises(AdapterError, match="the report must be of the adapter beside it, got one of"):
        summary(run)
    assert not (run / PAGE).exists()
    # What is advised of a report without its adapter still holds: it is of the digest that it states.
    (run / "adapter_model.safetensors").unlink()
    summary(run)


def test_what_is_no_report_is_refused(run: Path) -> None:
    (run / "report.json").write_text('{"format": "palette-tokens-report/1"}')
    with pytest.raises(OutputError, match="a report must follow palette-report/1"):
        summary(run)
    with pytest.raises(OutputError, match="no such file"):
        summary(run / "nowhere")
    assert not (run / PAGE).exists()
