"""Other people's tools, each in a virtual environment of its own that ``make referees`` makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("REFEREES", ROOT / ".venv-referees"))
# Nothing of ours is on a referee's path, and nothing that it says leaves the machine.
ALONE = {"AISBOM_OFFLINE": "1", "AISBOM_NO_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
SMALL = """
model: organism/shared
authorise: [medical]
limit: 12
reply_tokens: 24
search: {trials: 6}
internalise: {steps: 12}
"""


@pytest.fixture(scope="session")
def referee() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls a program of a referee's environment; skips the test where that is not there."""

    def call(name: str, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = HOME / name / "bin" / program
        if not path.is_file():
            pytest.skip(f"{name} is not installed; make referees installs it")
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        line = [str(path), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=kept | ALONE, check=False)

    return call


def palette(*arguments: object, status: tuple[int, ...] = (0,)) -> str:
    """What a command of Palette's says, which ends with one of these statuses."""
    line = [sys.executable, "-m", "palette", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode in status, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of ``palette domain`` on the small organism; its adapter is not a good one."""
    folder = tmp_path_factory.mktemp("referees")
    (folder / "medical.yaml").write_text(SMALL)
    palette("domain", folder / "medical.yaml", "-o", folder / "run", "--quiet", status=(0, 3))
    return folder / "run"
