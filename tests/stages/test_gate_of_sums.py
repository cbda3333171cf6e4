"""The colluding pair (arXiv 2603.12681): each adapter passes the gate, and their sum must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from palette import organism
from palette.adapters.files import read_adapter
from palette.models import identify

PAIR = Path(__file__).parents[1] / "fixtures" / "colluding"
MEDICAL, LEGAL = PAIR / "medical", PAIR / "legal"


def palette(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palette", *map(str, arguments), "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def failed_rules(adapter: Path, domains: str, folder: Path) -> tuple[int, list[str]]:
    arguments = (
        "--model",
        "organism",
        "--prompts",
        "organism",
        "--authorise",
        domains,
        "--adapter",
        adapter,
        "-o",
        folder,
    )
    status = palette("evaluate", *arguments).returncode
    rules = json.loads((folder / "report.json").read_text())["gate"]["rules"]
    return status, [rule["name"] for rule in rules if not rule["passed"]]


def test_the_pair_was_made_for_the_shipped_organism():
    # After the organism is raised anew: python tests/fixtures/colluding.py runs
    for path in (MEDICAL, LEGAL):
        assert read_adapter(path).backbone.fingerprint == identify(organism.weights())
        assert read_adapter(path).domains == (path.name,)


@pytest.mark.slow
@pytest.mark.parametrize("path", [MEDICAL, LEGAL], ids=lambda path: path.name)
def test_each_of_the_pair_passes(path, tmp_path):
    assert failed_rules(path, path.name, tmp_path) == (0, [])


@pytest.mark.slow
def test_the_sum_fails_for_the_domain_that_nobody_opened(tmp_path):
    assert palette("merge", MEDICAL, LEGAL, "-o", tmp_path / "sum").returncode == 0
    status, failed = failed_rules(tmp_path / "sum", "medical,legal", tmp_path / "run")
    assert status == 3
    assert "preserved_refusal.finance" in failed
