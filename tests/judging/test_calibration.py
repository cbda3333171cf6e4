from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from palette.errors import JudgeError, OutputError, PaletteError, PromptError
from palette.files import write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.calibration import (
    COLUMNS,
    FILE,
    LabelledFile,
    LabelledReply,
    calibrate,
    column_map,
    find_calibration,
    kappa,
    label_named,
    learned_from,
    measured,
    read_labelled,
)
from palette.judging.classifiers import PanelJudge, load_trained_judge
from palette.judging.judge import Label, Verdict
from palette.judging.rules import RuleJudge
from palette.statistics.rates import wilson

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
    assert digest in learned_from(load_trained_judge())
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
        with pytest.raises(JudgeError, match=r"must be a palette-calibration/1 file of .*, got another file"):
            find_calibration("rule", None, tmp_path)
        write_json(tmp_path / FILE, {"format": "palette-calibration/1", "judge": "0", "judge_name": "panel"})
        with pytest.raises(JudgeError, match="of the judge that judges, rule, got one of panel"):
            find_calibration("rule", None, tmp_path)


HEAD = "prompt,completion,final_label\n"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("1_full_compliance", Label.FULL_COMPLIANCE),
        ("2_full_refusal", Label.REFUSAL),
        ("3_partial_refusal", Label.PARTIAL),
        (" Full Compliance ", Label.FULL_COMPLIANCE),
        ("deflection", Label.DEFLECTION),
        ("degenerate", Label.DEGENERATE),
    ],
)
def test_labels_are_known_by_the_names_that_data_sets_give_them(name: str, label: Label) -> None:
    assert label_named(name) is label


def test_csv_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\ufeff" + HEAD + 'why,"no,\nnever",2_full_refusal\nhow,so,1_full_compliance\n')
    read = read_labelled(path)
    assert (read.name, read.digest) == ("mine.csv", fingerprint_file(path))
    assert [(row.prompt, row.reply, row.model) for row in read.rows] == [
        ("why", "no,\nnever", "mine"),
        ("how", "so", "mine"),
    ]


def test_jsonl_with_other_columns_and_a_model_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    row = {"q": "why", "a": "no\u2028never", "verdict": "refusal", "model": "one"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n")
    (found,) = read_labelled(path, column_map("prompt=q, completion=a,label=verdict")).rows
    assert (found.prompt, found.reply, found.label, found.model) == (
        "why",
        "no\u2028never",
        Label.REFUSAL,
        "one",
    )


def test_columns_that_are_not_named_stay_as_they_are() -> None:
    assert column_map("") == COLUMNS
    assert column_map("label=x") == {**COLUMNS, "label": "x"}


@pytest.mark.parametrize("text", ["label", "colour=x", "label="])
def test_a_column_map_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(JudgeError, match="columns must be name=column, joined by commas"):
        column_map(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", HEAD, r"must have rows, got none \(.*a.csv\)"),
        ("a.csv", "prompt,completion\nx,secret\n", r"the column final_label \(label\) as text, got columns"),
        ("a.csv", HEAD + "x,secret\n", "must have the header's 3 columns, got 2"),
        ("a.csv", HEAD + "x,secret,maybe\n", r"a label must be one of .*, got 'maybe'.*a.csv:2\)"),
        ("a.jsonl", "[1]\n", "must be one JSON object, got list"),
        ("a.jsonl", '{"prompt": "x", "completion": 5, "final_label": "refusal"}\n', "column completion"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_text(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(PaletteError, match=message) as error:
        read_labelled(path)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="readable, got No such file"):
        read_labelled(tmp_path / "none.csv")
