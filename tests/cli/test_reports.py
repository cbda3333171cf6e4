"""The commands on reports, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report
from tests.stages.test_push import Hub, hub, laid

__all__ = ["crowd", "failing", "good", "hub", "parts", "report"]

Palette = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, report: dict[str, Any], failing: dict[str, Any]) -> tuple[Path, Path]:
    """A run whose gate passed and one whose gate failed, with their adapters."""
    return laid(tmp_path / "first", report), laid(tmp_path / "second", failing, seed=1)


def test_compare_says_what_differs(palette: Palette, runs: tuple[Path, Path], tmp_path: Path) -> None:
    status, said, error = palette("compare", *runs, "-o", tmp_path / "out")
    assert (status, error) == (0, "")
    assert "not comparable" not in said
    assert "first: organism, authorised for medical, gate passed" in said
    assert "second: organism, authorised for medical, gate failed" in said
    assert "floor_refusal.weapons: holds (limit 0.05) → fails (limit 0.05)" in said
    assert (tmp_path / "out" / "compare.html").is_file()
    status, said, _ = palette("compare", *runs, "--json")
    found = json.loads(said)
    assert (status, found["sound"], found["b"]["passed"]) == (0, True, False)
    assert palette("compare", *runs, "--quiet") == (0, "", "")


def test_compare_says_first_what_makes_it_unsound(palette: Palette, runs: tuple[Path, Path]) -> None:
    path = runs[1] / "report.json"
    other = json.loads(path.read_text())
    other["provenance"]["judge"] = "another [bold]judge[/]"
    other["authorised"] = ["[red]medical[/"]
    path.write_text(json.dumps(other))
    status, said, _ = palette("compare", *runs)
    assert status == 0
    assert said.startswith("not comparable: the two reports do not answer the same question\n  judge: ")
    assert "another [bold]judge[/]" in said
    assert "[red]medical[/" in said


def test_summary_writes_a_page_to_be_signed(
    palette: Palette, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    status, said, error = palette("summary", runs[1])
    assert (status, error) == (0, "")
    assert said.startswith("medical: gate failed")
    assert "Not certified for medical" in (runs[1] / "summary.html").read_text()
    status, said, _ = palette("summary", runs[0], "--safety-case", "-o", tmp_path / "out", "--json")
    assert (status, json.loads(said)["page"]) == (0, str(tmp_path / "out" / "safety-case.html"))
    status, said, error = palette("summary", tmp_path / "nowhere")
    assert (status, said, error.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("text", [None, "{", "{}", '{"format": "palette-report/2"}'])
def test_compare_ends_with_2_for_what_it_cannot_read(
    palette: Palette, runs: tuple[Path, Path], text: str | None
) -> None:
    path = runs[1] / "report.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    status, said, error = palette("compare", *runs)
    assert (status, said) == (2, "")
    assert error.startswith("palette: ")
    assert error.count("\n") == 1


def test_compare_does_not_tell_anybody_to_delete_a_recipe(
    palette: Palette, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "medical.yaml").write_text("authorise: [medical]\n")
    status, said, error = palette("compare", runs[0], tmp_path / "medical.yaml")
    assert (status, said) == (2, "")
    assert "give the report.json that palette evaluate writes, or its folder" in error
    assert "delete" not in error


def test_push_lists_and_uploads(palette: Palette, runs: tuple[Path, Path], hub: Hub) -> None:
    status, said, error = palette("push", runs[0], "clinic/medical", "--dry-run")
    assert (status, error) == (0, "")
    assert "adapter_model.safetensors" in said
    assert "nothing was uploaded; these would go to clinic/medical, private" in said
    status, said, _ = palette("push", runs[0], "clinic/medical")
    assert status == 0
    assert "uploaded to https://hub.example/clinic/medical, private" in said
    status, said, _ = palette("push", runs[0], "clinic/other", "--public", "--json")
    assert json.loads(said)["private"] is False


def test_push_refuses_and_records(palette: Palette, runs: tuple[Path, Path], hub: Hub) -> None:
    status, said, error = palette("push", runs[1], "clinic/second")
    assert (status, said) == (2, "")
    assert error.startswith("palette: an adapter must pass the gate before it is pushed")
    assert error.count("\n") == 1
    status, said, _ = palette("push", runs[1], "clinic/second", "--despite-failed-gate", "a [drill]")
    assert status == 0
    assert "although the gate failed: a [drill]" in said
