"""The list of runs, of whatever lies in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import OutputError
from palette.files import MARKER, write_json
from palette.stages.runs import runs
from palette.working import working


def report(passed: bool, failed: int = 0, **more) -> dict:
    rules = [{"name": f"r{i}", "passed": i >= failed} for i in range(3)]
    return {"model": {"name": "m"}, "authorised": ["law"], "gate": {"passed": passed, "rules": rules}, **more}


def put(folder: Path, age: float, **files) -> None:
    write_json(folder / MARKER, {"recipe": folder.name})
    for name, content in files.items():
        write_json(folder / name.replace("__", "/").replace("_json", ".json"), content)
    for path in folder.rglob("*.json"):
        os.utime(path, (1e9 - age, 1e9 - age))


def test_each_run_says_what_it_opens_of_which_model_and_what_its_gate_said(tmp_path):
    put(tmp_path / "good", 10, report_json=report(True))
    put(tmp_path / "bad", 5, report_json=report(False, 2))
    about = {"model": "organism", "authorised": ["medical"]}
    begun = {"collect": {"outputs": {"a": "b"}, "about": about}, "search": {"outputs": None}}
    put(tmp_path / "begun", 1, **{f"{name}__stage_json": record for name, record in begun.items()})
    put(tmp_path / "nested" / "tokens", 20, report_json=report(True, categories=["a"], authorised=None))
    (tmp_path / "nothing").mkdir()
    found = {run["name"]: run for run in runs(str(tmp_path))["runs"]}
    assert list(found) == ["begun", "bad", "good", "tokens"], "the latest first"
    assert (found["bad"]["gate"], found["bad"]["failed"]) == ("failed", 2)
    assert (found["good"]["gate"], found["good"]["domains"], found["good"]["model"]) == (
        "passed",
        ["law"],
        "m",
    )
    assert found["tokens"]["domains"] == ["a"]
    assert found["begun"]["gate"] is None
    assert (found["begun"]["done"], found["begun"]["model"]) == (["collect"], "organism")
    assert [run["name"] for run in runs(tmp_path / "good")["runs"]] == ["good"]


def test_a_run_at_which_a_command_is_says_so(tmp_path):
    put(tmp_path / "mine", 1)
    with working(tmp_path / "mine"):
        assert runs(tmp_path)["runs"][0]["working"]["pid"] == os.getpid()
    assert runs(tmp_path)["runs"][0]["working"] is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["gate", "rules", "passed", "model", "name", "authorised", "outputs", "about"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(written=JSON, record=JSON, raw=st.none() | st.binary(max_size=6))
def test_whatever_stands_in_its_files_a_run_is_listed(tmp_path_factory, written, record, raw):
    folder = tmp_path_factory.mktemp("any")
    write_json(folder / "report.json", written)
    write_json(folder / "collect" / "stage.json", record)
    if raw is not None:
        (folder / "report.json").write_bytes(raw)
    (run,) = runs(folder)["runs"]
    assert run["gate"] in ("passed", "failed", None)
    json.dumps(run)


def test_a_folder_must_be_there(tmp_path):
    with pytest.raises(OutputError, match="name the one they are in"):
        runs(tmp_path / "none")
