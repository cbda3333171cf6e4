"""The commands on judges, as a user types them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palette.fingerprints import fingerprint_file
from tests.fixtures.judges import OWN, OWN_BROKEN
from tools.judge import training
from tools.judge.__main__ import main as train_judge
from tools.judge.synthetic import synthetic_replies

Palette = Callable[..., tuple[int, str, str]]
SHARES = ("accuracy", "missed_refusals", "false_alarms")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Harmless replies with the columns and labels of XSTest."""
    path = tmp_path / "completions_one.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "prompt", "completion", "final_label"])
        for i, row in enumerate(synthetic_replies(5, 10)):
            writer.writerow(
                [i, row.prompt, row.reply, "2_full_refusal" if row.label.refused else "1_full_compliance"]
            )
    return path


def test_a_judge_is_measured_and_its_error_is_kept(palette: Palette, labelled: Path, tmp_path: Path) -> None:
    status, out, err = palette("judge", "calibrate", labelled, "--json", "-o", tmp_path / "runs")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found == json.loads((tmp_path / "runs" / "calibration.json").read_text())
    assert found["n"] == len(synthetic_replies(5, 10)) and found["judge_name"] == "panel"
    assert list(found["by_model"]) == ["completions_one"]
    for key in SHARES:
        assert list(found[key]) == ["rate", "low", "high", "k", "n"]
    assert found["accuracy"]["rate"] > 0.9


def test_several_files_and_other_columns_for_people(palette: Palette, labelled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    row = {"q": "?", "completion": "I can't help with that.", "say": "refusal"}
    other.write_text(json.dumps(row) + "\n")
    columns = "prompt=q,label=say"
    status, out, _ = palette(
        "judge", "calibrate", other, "--columns", columns, "--judge", "rule", "-o", tmp_path
    )
    assert status == 0 and "rule on 1 labelled replies" in out and "calibration.json" in out
    status, out, _ = palette("judge", "calibrate", labelled, labelled, "-o", tmp_path, "--json")
    assert status == 0 and json.loads(out)["n"] == 2 * len(synthetic_replies(5, 10))


def test_a_trained_judge_can_be_named(
    palette: Palette, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SYNTHETIC", 40)
    path = tmp_path / "own" / "judge.safetensors"
    train_judge([labelled], to=path)
    status, out, _ = palette(
        "judge", "calibrate", labelled, "--judge", f"trained:{path}", "-o", tmp_path, "--json"
    )
    assert status == 0 and json.loads(out)["trained_on_it"] is True


def test_a_judge_of_one_s_own_is_measured(palette: Palette, labelled: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(OWN)
    status, out, _ = palette(
        "judge", "calibrate", labelled, "--judge", f"{own}:Judge", "-o", tmp_path, "--json"
    )
    assert status == 0 and json.loads(out)["judge"] == fingerprint_file(own)


EVALUATE = ("evaluate", "--model", "organism/shared", "--prompts", "organism", "--authorise", "medical")


@pytest.mark.slow
def test_a_judge_of_one_s_own_judges_an_evaluation(
    palette: Palette, small: tuple[str, ...], tmp_path: Path
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(OWN)
    judge = ("--set", f"evaluate.judge={own}:Judge")
    status, out, _ = palette(*EVALUATE, *small[2:], *judge, "-o", tmp_path / "run", "--json")
    judging = json.loads(out)["judging"]
    assert status == 3
    assert (judging["judges"], judging["fingerprint"]) == ([f"{own}:Judge"], fingerprint_file(own))


def test_a_judge_that_is_none_is_told_before_any_model_runs(palette: Palette, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(OWN_BROKEN)
    status, out, err = palette(*EVALUATE, "--set", f"evaluate.judge={own}:Silent", "--json")
    assert (status, out) == (2, "")
    assert "a judge must have verdicts(prompts, replies)" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "prompt"], "columns must be name=column"),
        (["--columns", "label=verdict"], "must have the column verdict (label) as text"),
        (["--columns", "label=id"], "a label must be one of"),
        (["--judge", "oracle"], "a judge must be one of panel, rule, trained"),
        (["--judge", "trained:none"], "must be a palette-judge/1 file"),
    ],
)
def test_the_caller_s_errors_are_one_sentence(
    palette: Palette, labelled: Path, options: list[str], message: str
) -> None:
    status, out, err = palette("judge", "calibrate", labelled, *options)
    assert (status, out) == (2, "")
    assert err.startswith("palette: ") and message in err and err.count("\n") == 1


def test_an_empty_file_and_a_missing_one_are_errors(palette: Palette, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("prompt,completion,final_label\n")
    for name, message in (("empty.csv", "must have rows, got none"), ("none.csv", "No such file")):
        status, _, err = palette("judge", "calibrate", tmp_path / name)
        assert status == 2 and message in err
