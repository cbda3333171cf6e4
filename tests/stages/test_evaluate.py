from __future__ import annotations

import json

import pytest

from palette.errors import BackboneError, JudgeError, OutputError
from palette.evaluation.settings import EvaluateSettings
from palette.judging.calibration import CALIBRATION_FORMAT
from palette.judging.judge import judge_named
from palette.prompts.sources import Source
from palette.stages.evaluate import report_on
from palette.statistics.rates import wilson
from palette.suites.run import SUITE_FORMAT as SUITE

SMALL = {"limit": 2, "reply_tokens": 16}


@pytest.fixture
def run(shared, tmp_path):
    return shared.sharing(folder=tmp_path, **SMALL)


def reported(run, **settings):
    chosen = run.sharing(evaluate=EvaluateSettings(**settings))
    return report_on(chosen, None, judge_named(chosen.recipe.evaluate.judge)).model_dump(mode="json")


def calibration(judge: str) -> dict[str, object]:
    error = {"missed_refusals": wilson(6, 300).to_json(), "false_alarms": wilson(5, 300).to_json()}
    measured = {"accuracy": wilson(589, 600).to_json(), **error, "kappa": 0.96}
    about = {"judge": judge, "judge_name": "panel", "source": "labelled.csv", "digest": "ab" * 32, "n": 600}
    return {"format": CALIBRATION_FORMAT, **about, **measured}


def suite(fingerprint: str, adapter: str | None = None) -> dict[str, object]:
    source = {"name": "set", "digest": "cd" * 32, "licence": "MIT", "source": "somewhere", "rows": 9}
    line = {"name": "xstest", "kind": "over_refusal", "n": 9, "seconds": 0.5, "source": source}
    figures = {"base": {"refusal": wilson(1, 9).to_json()}, "adapted": {}, "change": None}
    model = {"name": "organism", "fingerprint": fingerprint}
    slots = {"suites": [{**line, **figures}], "sources": [source]}
    return {"format": SUITE, "model": model, "adapter": adapter, **slots}


def written(path, value):
    path.write_text(json.dumps(value))
    return path


def test_a_report_says_who_judged_and_what_was_refused_too_much(run):
    report = reported(run)
    judging = report["judging"]
    assert judging["judges"] == ["rule", "trained"]
    assert "calibration" not in judging
    assert judging["fingerprint"] == report["provenance"]["judge"]
    assert judging["disagreements"]["base"]["n"] > 0
    assert not judging["corrected"]
    assert report["over_refusal"]["ids"] == []
    assert report["over_refusal"]["base"] == report["over_refusal"]["adapted"]
    assert judging["floor_tokens"] == run.recipe.floor_tokens


def test_a_single_judge_disagrees_with_nobody(run):
    report = reported(run, judge="rule")
    assert report["judging"]["judges"] == ["rule"]
    assert "disagreements" not in report["judging"]


def test_a_calibration_beside_the_report_corrects_its_rates(run):
    written(run.folder / "calibration.json", calibration(judge_named("panel").fingerprint))
    report = reported(run)
    assert report["judging"]["calibration"]["source"] == "labelled.csv"
    raw = report["base"]["domains"]["medical"]["restricted"]["refusal"]
    freed = report["judging"]["corrected"]["base"]["medical"]["restricted"]
    assert freed["low"] <= freed["rate"] <= freed["high"]
    assert freed["rate"] == pytest.approx(min(1.0, (raw["rate"] - 5 / 300) / (1 - 11 / 300)))


def test_a_calibration_of_another_judge_is_refused_before_anything_is_asked(run, tmp_path):
    path = written(tmp_path / "other.json", calibration("another"))
    with pytest.raises(JudgeError, match="file of the judge that judges, panel"):
        reported(run, calibration=path)
    assert not (run.folder / "evaluate").exists()


def test_suites_of_the_same_backbone_and_adapter_stand_in_the_report(run, tmp_path):
    path = written(tmp_path / "suite.json", suite(run.backbone.fingerprint))
    own = Source(run.prompts, "own", "ef" * 32, "CC0", "here", 4)
    vars(run)["_read"] = (run.answered_prompts, [own])
    report = reported(run, suites=(path,))
    assert [line["name"] for line in report["suites"]] == ["xstest"]
    assert [source["name"] for source in report["sources"]] == ["own", "set"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (suite("another"), "got one of another backbone; measure it again with palette suite"),
        (suite("another", "ab"), "got one of another backbone and another adapter"),
        ({"format": "palette-report/1"}, "must be a palette-suite/1 file"),
    ],
)
def test_a_suite_of_something_else_is_refused(run, tmp_path, value, sentence):
    path = written(tmp_path / "suite.json", value)
    with pytest.raises(OutputError, match=sentence):
        reported(run, suites=(path,))


def test_a_helpful_checkpoint_is_the_upper_bound_and_says_how_far_replies_agree(run):
    report = reported(run, helpful="organism/helpful")
    bound = report["upper_bound"]
    assert bound["model"] == "organism/helpful"
    assert set(bound["domains"]) == set(bound["agreement"]) == {"medical"}
    found = bound["agreement"]["medical"]
    assert found["n"] + found["left_out"] == bound["domains"]["medical"]["restricted"]["refusal"]["n"]
    assert found["base"] == found["adapted"] == 0
    assert found["refused"] == found["n"]
    assert "helpful" not in [rule["name"] for rule in report["gate"]["rules"]]
    assert reported(run)["upper_bound"] is None


def test_a_helpful_checkpoint_that_is_not_there_is_told_before_anything_is_asked(run):
    with pytest.raises(BackboneError, match="a GGUF file or a hub name, got"):
        reported(run, helpful="./nowhere")
    assert not (run.folder / "evaluate").exists()
