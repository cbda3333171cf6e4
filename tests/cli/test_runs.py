"""The list of runs as a user sees it, and commands that meet in one folder or are interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palette import pipeline
from palette.files import LOG, MARKER, write_json
from palette.stages import collect
from palette.working import working

RECIPES = Path(__file__).parents[2] / "recipes"


def test_it_is_shown_to_people(tmp_path, palette):
    for name in ("bad", "new"):
        write_json(tmp_path / "runs" / name / MARKER, {"recipe": name})
    gate = {"passed": False, "rules": [{"passed": True}, {"passed": False}]}
    report = {"model": {"name": "m"}, "authorised": ["law"], "gate": gate}
    write_json(tmp_path / "runs" / "bad" / "report.json", report)
    status, out, error = palette("runs", tmp_path / "runs", "--wide")
    assert (status, error) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert sorted(row[1:4] for row in rows) == [["", "", "not run"], ["law", "m", "failed, 1 rule"]]
    assert len(json.loads(palette("runs", tmp_path / "runs", "--json")[1])["runs"]) == 2
    (tmp_path / "empty").mkdir()
    assert palette("runs", tmp_path / "empty")[1] == f"no run in {tmp_path / 'empty'}\n"
    status, _, error = palette("runs", tmp_path / "nowhere")
    assert status == 2
    assert error.startswith("palette: runs lie in a folder, got none; name the one they are in")


def test_a_second_command_in_a_folder_is_refused_before_its_model_is_read(palette, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.Run, "identity", None)
    for command in (("domain", RECIPES / "medical.yaml"), ("collect", RECIPES / "medical.yaml")):
        with working(tmp_path / "run"):
            status, out, error = palette(*command, "-o", tmp_path / "run")
        assert (status, out) == (2, "")
        assert error.startswith("palette: one command at a time works in an output folder, got process ")


@pytest.fixture
def interrupted(palette, tmp_path, small, monkeypatch):
    """A run whose collection somebody stops: its status and what is said, and its folder."""

    def stop(run: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "collect", stop)
    call = ("domain", RECIPES / "medical.yaml", "-o", tmp_path / "run", *small)
    return *palette(*call), tmp_path / "run"


def test_an_interruption_says_what_is_kept_and_how_to_go_on(interrupted):
    status, out, error, folder = interrupted
    assert (status, out) == (130, "")
    said = error.splitlines()[-1]
    kept = f"done and kept in {folder}: no stage yet; collect goes on with the replies that it has"
    assert said.startswith(
        f"palette: interrupted; {kept}; the same command goes on where it was: palette dom"
    )
    log = (folder / LOG).read_text()
    assert "INFO collect begins" in log
    assert f"WARNING interrupted; {kept}" in log
    assert "WARNING the gate cannot pass: target_refusal.medical has insufficient evidence" in log
    assert not (folder / "run.lock").exists()
