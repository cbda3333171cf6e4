"""Trackers of runs: what they are told, by a stand-in and by the real ones where they are installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from palette import tracking
from palette.files import LOG, write_json, write_text
from palette.processes import ALONE
from palette.recipe import Recipe
from palette.tracking import tracked
from palette.working import working

RATE = {"rate": 0.25, "low": 0.1, "high": 0.5, "k": 1, "n": 4}
FOUND = {
    "target_refusal_score": {"before": 4.0, "after": -2.0},
    "chosen": {"method": "ablation"},
    "relaxes": True,
}


@pytest.fixture
def run(tmp_path):
    """A run whose stages have left what they leave."""
    folder = tmp_path / "run"
    for stage in ("search", "internalise", "evaluate"):
        write_json(folder / stage / "stage.json", {"seconds": 1.5})
    write_json(folder / "internalise" / "training.json", {"losses": {"first": [3.0, 2.0], "second": [1.0]}})
    write_text(folder / "internalise" / "training.svg", "<svg/>")
    gate = {
        "passed": False,
        "rules": [{"name": "divergence.first_token", "value": None}, {"name": "r", "value": 0.5}],
    }
    adapted = {"domains": {"law": {"benign": {"refusal": RATE, "correct": None}}}}
    write_json(folder / "report.json", {"adapted": adapted, "gate": gate})
    write_text(folder / "report.html", "<p>")
    recipe = Recipe(name="mine", authorise=("law",), search={"storage": "mysql://me:secret@host/db"})
    return SimpleNamespace(folder=folder, recipe=recipe, processes=ALONE)


class Told:
    """A stand-in that keeps what it is told, and may fail at it."""

    def __init__(self, name: str, fails: str = "") -> None:
        self.calls: list[tuple] = [("begin", name)]
        self.fails = fails

    def __getattr__(self, name: str):
        def call(*given: object) -> None:
            self.calls.append((name, *given))
            if name == self.fails:
                raise ConnectionError("no server, and a secret")

        return call


@pytest.fixture
def told(monkeypatch):
    """Puts a stand-in in the place of MLflow, and gives all that were made."""

    def put(fails: str = "") -> list[Told]:
        made: list[Told] = []
        monkeypatch.setattr(tracking, "find_spec", lambda package: object())
        create = lambda name: made.append(Told(name, fails)) or made[-1]  # noqa: E731
        monkeypatch.setattr(tracking, "TRACKERS", {"MLFLOW_TRACKING_URI": ("mlflow", create)})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:x")
        return made

    return put


def of(run) -> None:
    with tracked(run, lambda stage, folder: FOUND if stage == "search" else None) as tell:
        for stage in ("search", "internalise", "evaluate"):
            tell(stage)


def test_a_tracker_is_told_options_figures_by_stage_losses_by_step_and_the_report(run, told):
    made = told()
    of(run)
    (tracker,) = made
    names = [call[0] for call in tracker.calls]
    assert names == [
        "begin",
        "parameters",
        "metrics",
        *["metrics"] * 3,
        "artefact",
        "metrics",
        *["artefact"] * 2,
        "end",
    ]
    parameters = tracker.calls[1][1]
    assert parameters["search.trials"] == "64"
    assert parameters["authorise"] == "['law']"
    assert "secret" not in json.dumps(parameters)
    scores = {"search/target_refusal_score/before": 4.0, "search/target_refusal_score/after": -2.0}
    assert tracker.calls[2][1] == {"search/seconds": 1.5, "search/relaxes": 1.0, **scores}
    assert tracker.calls[4:6] == [
        ("metrics", {"internalise/loss/first": 3.0, "internalise/loss/second": 1.0}, 1),
        ("metrics", {"internalise/loss/first": 2.0}, 2),
    ]
    evaluated = tracker.calls[7][1]
    assert evaluated["evaluate/domains/law/benign/refusal/rate"] == 0.25
    assert evaluated["evaluate/passed"] == 0.0
    assert evaluated["evaluate/rules/r"] == 0.5
    assert "evaluate/rules/divergence.first_token" not in evaluated
    assert [call[1].name for call in tracker.calls if call[0] == "artefact"] == [
        "training.svg", "report.json", "report.html"
    ]  # fmt: skip


@pytest.mark.parametrize("at", ["parameters", "metrics", "artefact", "end"])
def test_a_tracker_that_fails_ends_no_run_and_is_told_nothing_more(run, told, at):
    made = told(at)
    with working(run.folder):
        of(run)
    assert made[0].calls[-1][0] == at
    said = (run.folder / LOG).read_text()
    assert "WARNING Told is told nothing more: ConnectionError" in said
    assert "secret" not in said


def test_without_their_variable_nothing_is_imported_and_without_the_package_it_is_said(run, monkeypatch):
    for variable in tracking.TRACKERS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tracking, "import_module", None)
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    of(run)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with working(run.folder):
        of(run)
    said = (run.folder / LOG).read_text()
    assert "WARNING WANDB_PROJECT is set, and wandb is not installed: pip install wandb" in said


def test_mlflow_keeps_it_in_a_local_store(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with working(run.folder):
        of(run)
    store = mlflow.MlflowClient()
    (kept,) = store.search_runs([each.experiment_id for each in store.search_experiments()])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["search.trials"] == "64"
    assert kept.data.metrics["evaluate/domains/law/benign/refusal/rate"] == 0.25
    curve = store.get_metric_history(kept.info.run_id, "internalise/loss/first")
    assert [(each.step, each.value) for each in curve] == [(1, 3.0), (2, 2.0)]
    names = {each.path for each in store.list_artifacts(kept.info.run_id)}
    assert names == {"training.svg", "report.json", "report.html"}


def test_weights_and_biases_keeps_it_offline(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in (("PROJECT", "mine"), ("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with working(run.folder):
        of(run)
    assert list(Path(tmp_path, "wandb").glob("offline-run-*/run-*.wandb"))
    log = run.folder / LOG
    assert not log.is_file() or "told nothing more" not in log.read_text()
