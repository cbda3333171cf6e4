"""What the commands of a recipe's stages print, where, and how early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from palette.cli import stages

RECIPES = Path(__file__).parents[2] / "recipes"
LACKING = (
    "warning: the gate cannot pass: target_refusal.medical has insufficient evidence: 12 prompts, 20 needed"
)


@pytest.fixture(scope="module")
def collected(tmp_path_factory, small) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that is collected, by a command whose output is no terminal, and what that wrote."""
    folder = tmp_path_factory.mktemp("runs") / "medical"
    call = [
        sys.executable,
        "-m",
        "palette",
        "collect",
        str(RECIPES / "medical.yaml"),
        "-o",
        str(folder),
        *small,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return folder, subprocess.run(call, capture_output=True, text=True, env=environment, check=True)


def test_collect_prints_refusals_by_domain_and_separation_as_a_picture(collected):
    _, done = collected
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line
    ]
    assert ["medical", "restricted", "12", "12", "0"] in rows
    assert ["medical", "benign", "12", "0", "12"] in rows
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("separation by layer "))
    assert set(line.split()[3]) <= set("▁▂▃▄▅▆▇█")
    assert "█" in line
    assert " most at layer " in line
    assert line.endswith(" standard deviations")
    assert "\x1b" not in done.stdout


def test_collect_warns_at_once_and_ends_well(collected):
    _, done = collected
    assert done.returncode == 0
    assert LACKING in done.stderr.splitlines()


def test_the_findings_are_in_json_too(palette, collected, small):
    folder, _ = collected
    status, out, err = palette("collect", RECIPES / "medical.yaml", "-o", folder, *small, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)["found"]
    assert found["domains"]["medical"]["restricted"] == {"read": 12, "refused": 12, "answered": 0}
    assert found["separation"]["best"] in range(found["separation"]["layers"] + 1)


def test_search_prints_the_chosen_trial_and_what_it_does(palette, collected, small):
    folder, _ = collected
    status, out, _ = palette("search", RECIPES / "medical.yaml", "-o", folder, *small)
    assert status == 0
    assert " of 6 trials lower the refusal score far enough and keep every limit" in out
    assert "chosen: trial " in out
    assert " strength " in out
    assert "target refusal score: " in out
    assert "│ target refusal (" in out
    status, out, _ = palette("search", RECIPES / "medical.yaml", "-o", folder, *small, "--json")
    found = json.loads(out)["found"]
    assert found["target_refusal_score"]["after"] < found["target_refusal_score"]["before"]


def test_quiet_says_nothing(palette, tmp_path, small):
    arguments = ("collect", RECIPES / "medical.yaml", "-o", tmp_path / "quiet", *small, "--quiet")
    assert palette(*arguments) == (0, "", "")


@pytest.fixture
def watched(monkeypatch, capsys, shared, tmp_path):
    """What a watcher says on standard error of a stage of a run, given the findings."""

    def say(stage: str, last: str, **found) -> str:
        from palette.search import findings

        for name, value in found.items():
            monkeypatch.setattr(findings, name, lambda folder, value=value: value)
        stages.watching(last, stages.Call())(shared.sharing(folder=tmp_path), stage)
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    return say


def rate(rate: float, n: int) -> dict[str, float]:
    return {"rate": rate, "low": 0.0, "high": 1.0, "k": round(rate * n), "n": n}


@pytest.mark.parametrize("after", [0.25, 1.0])
def test_domain_says_between_stages_whether_anything_relaxes(watched, after):
    found = {
        "trials": 6,
        "feasible": 3,
        "bound": {"benign_divergence": 2},
        "relaxes": after < 1,
        "audited": {"trials": 2, "relaxing": int(after < 1)},
        "chosen": {
            "trial": 4, "method": "directional_ablation", "direction": "cleaned", "peak": 7, "width": 2,
            "strength": 1.25,
        },
        "target_refusal_score": {"before": 8.1, "after": -4.2},
        "audit": {"target_refusal": {"before": rate(1.0, 24), "after": rate(after, 24)}},
    }  # fmt: skip
    said = watched("search", "evaluate", search_findings=found)
    assert " keep every limit\nbenign_divergence bound 2 of the others\n" in said
    assert "trial 4, directional_ablation of cleaned at site 7, width 2, strength 1.25" in said
    assert "target refusal score: 8.10 before, -4.20 after (nats)" in said
    assert "100.0% 0%–100%" in said
    warning = (
        "warning: nothing relaxes: none of the 2 audited trials has whole replies refused less often than "
        "the backbone's, so that the adapter has only what the backbone says where it may not refuse to "
        "learn from; raise search.trials"
    )
    assert f"{int(after < 1)} of 2 audited trials have whole replies refused less often" in said
    assert (warning in said.splitlines()) == (after == 1)


def test_the_last_stage_s_findings_are_its_result_and_not_told_twice(watched):
    found = {"relaxes": True}
    assert watched("search", "search", search_findings=found) == ""
