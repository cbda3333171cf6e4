"""Runs of the commands as a user types them, small enough for every day."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palette.cli import main

SMALL = (
    "--set", "model=organism/shared", "--set", "limit=12", "--set", "search.trials=6",
    "--set", "internalise.steps=12",
    "--set", "internalise.prompts=24", "--set", "internalise.validation_prompts=2",
    "--set", "evaluate.prompts=12", "--set", "evaluate.wrapped_prompts=1",
    "--set", "evaluate.reply_tokens=24",
)  # fmt: skip
"""Overrides that make a run of a recipe take seconds. Its adapter is not a good one."""


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The overrides of a small run."""
    return SMALL


Palette = Callable[..., tuple[int, str, str]]


@pytest.fixture
def palette(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Palette:
    """Calls the command line in this process: exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["palette", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe and gives its path."""

    def write(text: str, name: str = "medical.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
