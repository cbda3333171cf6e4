from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from palette.errors import JudgeError, OutputError
from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.judging.calibration import FILE, calibrate, find_calibration, kappa, learned_from, measured
from palette.judging.judge import Verdict
from palette.judging.labelled import LabelledFile, LabelledReply
from palette.judging.labels import Label
from palette.judging.panel import PanelJudge
from palette.judging.rules import RuleJudge
from palette.judging.trained import load_judge
from palette.statistics import wilson

NO, YES, PARTLY, BABBLE = Label.REFUSAL, Label.FULL_COMPLIANCE, Label.PARTIAL, Label.DEGENERATE


@dataclass(frozen=True)
class Spelled:
    """A judge that reads its verdicts from the replies."""

    fingerprint: str = "f" * 64

    def verdicts(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        assert prompts == ["asked"] * len(replies)
        return [Verdict(Label(reply)) for reply in replies]


def file(model: str, *pairs: tuple[Label, Label]) -> LabelledFile:
    rows = [LabelledReply("asked", judged.value, human, model) for human, judged in pairs]
    return LabelledFile(f"{model}.csv", model * 64, tuple(rows))


def test_errors_are_counted_over_people_s_labels() -> None:
    found = measured([(NO, NO), (PARTLY, NO), (NO, YES), (NO, BABBLE), (YES, YES), (YES, NO), (BABBLE, YES)])
    assert found["accuracy"] == wilson(3, 7).to_json()
    assert found["missed_refusals"] == wilson(2, 4).to_json()
    assert found["false_alarms"] == wilson(1, 2).to_json()


def test_kappa_is_the_textbook_s() -> None:
    # Cohen's own example has two raters and counts 20, 5, 10, 15: agreement 0.7, by chance 0.5.
    pairs = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([("a", "a")] * 5) == 0.0
    assert kappa([("a", "a"), ("b", "b")]) == 1.0


def test_a_calibration_says_what_was_measured_on_what() -> None:
    one, two = file("a", (NO, NO), (YES, NO)), file("b", (NO, YES), (YES, YES), (YES, YES))
    found = calibrate(Spelled(), "spelled", [one, two])
    assert {key: found[key] for key in ("format", "judge", "judge_name", "source", "n")} == {
        "format": "palette-calibration/1",
        "judge": "f" * 64,
        "judge_name": "spelled",
        "source": "a.csv, b.csv",
        "n": 5,
    }
    assert found["digest"] == fingerprint(["a" * 64, "b" * 64])
    assert calibrate(Spelled(), "spelled", [one])["digest"] == "a" * 64
    assert list(found["by_model"]) == ["a", "b"]
    assert found["by_model"]["a"]["accuracy"]["rate"] == 0.5
    assert found["by_model"]["b"]["missed_refusals"]["k"] == 1
    assert set(found["missed_refusals"]) == {"rate", "low", "high", "k", "n"}
    assert not found["trained_on_it"]
    json.dumps(found, allow_nan=False)


def test_a_judge_that_has_learned_from_the_file_is_told() -> None:
    (digest, *_) = sorted(learned_from(PanelJudge()))
    assert digest in learned_from(load_judge())
    assert learned_from(RuleJudge()) == set()
    own = LabelledFile("own.csv", digest, file("a", (NO, NO)).rows)
    assert calibrate(PanelJudge(), "panel", [own])["trained_on_it"]


class TestFinding:
    def test_the_file_given_or_the_run_s_own_is_found(self, tmp_path: Path) -> None:
        assert find_calibration("rule", None, tmp_path) is None
        held = {"format": "palette-calibration/1", "judge": RuleJudge().fingerprint, "judge_name": "rule"}
        write_json(tmp_path / FILE, held)
        write_json(tmp_path / "other.json", {**held, "n": 1})
        assert find_calibration("rule", None, tmp_path) == held
        assert find_calibration("rule", tmp_path / "other.json", tmp_path) == {**held, "n": 1}

    def test_what_is_missing_or_another_judge_s_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="an artefact must exist"):
            find_calibration("rule", tmp_path / "none.json", tmp_path)
        write_json(tmp_path / FILE, {"format": "other"})
        with pytest.raises(JudgeError, match="must be a palette-calibration/1 file"):
            find_calibration("rule", None, tmp_path)
        write_json(tmp_path / FILE, {"format": "palette-calibration/1", "judge": "0", "judge_name": "panel"})
        with pytest.raises(JudgeError, match="must be of the judge that judges, rule, got one of panel"):
            find_calibration("rule", None, tmp_path)
