"""What docs/tutorial-vision.md has people type, on a tiny Qwen2.5-VL of random weights."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palette.cli.app import app
from palette.errors import SearchError
from tests.fixtures.seeing import saved_model
from tests.fixtures.sighted import few_prompts

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial-vision.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^\$ (palette .*)$", PAGE, re.MULTILINE)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the class and prompts, as the page has them."""
    folder = tmp_path_factory.mktemp("tutorial")
    saved_model("qwen", folder / "my-model")
    few_prompts(folder / "prompts", 4, 2, 4)
    return folder


@pytest.mark.slow
def test_the_first_hour(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    said = {}
    for words in COMMANDS[:4]:
        done = CliRunner().invoke(app, [*words, *(["--json"] if words[0] in ("check", "inspect") else [])])
        said[words[0]] = done
    assert list(said) == ["init", "check", "inspect", "collect"]
    assert said["init"].exit_code == said["inspect"].exit_code == 0, said
    checked = json.loads(said["check"].stdout)
    assert said["check"].exit_code == 0 and checked["stages_gib"]["collect"] > 0
    for cell in ("text", "blank", "unrelated", "picture"):
        assert f"cell_floor.{cell} has insufficient evidence" in said["check"].stdout
    # Random weights refuse nothing: pictures were looked at and replied to, and there is nothing to open.
    assert isinstance(said["collect"].exception, SearchError)
    told = str(said["collect"].exception)
    assert "a backbone must refuse at least 4 of the target train prompts, got 0" in told


def test_every_command_of_the_page_is_one_with_these_options() -> None:
    assert [words[0] for words in COMMANDS] == [
        "init", "check", "inspect", "collect", "domain", "ask", "suite", "merge",
    ]  # fmt: skip
    for words in COMMANDS[4:]:
        shown = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200"}).output
        assert all(word in shown for word in words if word.startswith("--")), words
