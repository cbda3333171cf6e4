"""What has a name in a recipe: of installed packages, of users' files, and never in the place of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from palette.errors import JudgeError, PromptError, RecipeError
from palette.judging.judge import Label, judge_named
from palette.merging.methods import merge_method
from palette.merging.settings import MergeSettings
from palette.prompts import load_source
from palette.registry import Registry, Row
from palette.search.settings import SearchSettings, objective_named

CODE = """
from palette.judging.judge import Label, Verdict
from palette.prompts.schemas import Schema

class Strict:
    def verdicts(self, prompts, replies):
        return [Verdict(Label.REFUSAL)] * len(replies)

def score(trial):
    return 1.0

def none(group):
    return group.modules[0]

NOTES = Schema("notes", ("note",), kind="benign")
NO_SCHEMA, ADVBENCH = "notes", Schema("advbench", ("note",), kind="benign")
"""
POINTS = """
[palette.judges]
strict = brought_by_a_test:Strict
rule = brought_by_a_test:Missing
[palette.objectives]
one = brought_by_a_test:score
[palette.merge_methods]
first = brought_by_a_test:none
weighted_sum = brought_by_a_test:none
gone = brought_by_a_test:gone
broken = brought_broken:x
[palette.schemas]
notes = brought_by_a_test:NOTES
text = brought_by_a_test:NO_SCHEMA
advbench-too = brought_by_a_test:ADVBENCH
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings one thing of each kind, as pip would have put it there."""
    home = tmp_path / "site"
    about = home / "brought-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(POINTS)
    (home / "brought_by_a_test.py").write_text(CODE)
    (home / "brought_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(home))
    for name in ("brought_by_a_test", "brought_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return home


def test_a_package_brings_a_judge_known_by_its_version(installed: Path) -> None:
    judge = judge_named("strict")
    assert judge.fingerprint == "brought 1.2"
    assert judge.verdicts(["a"], ["b"])[0].label is Label.REFUSAL
    with pytest.raises(JudgeError, match=r"file\.py:name, strict, got 'stric'"):
        judge_named("stric")


def test_a_package_brings_an_objective_that_a_recipe_names(installed: Path) -> None:
    settings = SearchSettings(objectives=("one",))
    assert "brought_by_a_test" not in sys.modules, "nothing is imported to check a name"
    assert settings.own_files() == {"one": "brought 1.2"}
    assert objective_named("one")[1] == "minimize"


def test_a_package_brings_a_merge_method_and_none_in_the_place_of_ours(installed: Path) -> None:
    assert MergeSettings(adapters=("a",), method="first").method_options == {}
    assert merge_method("first").load().__name__ == "none"
    assert merge_method("weighted_sum").load().__name__ == "weighted_sum"
    assert judge_named("rule").fingerprint != "brought 1.2"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gone", "a file must have what a recipe takes from it, got no gone"),
        ("broken", "an installed package must be importable, got ZeroDivisionError: division by zero"),
    ],
)
def test_a_package_that_does_not_keep_its_word_is_a_sentence(installed: Path, name: str, part: str) -> None:
    with pytest.raises(RecipeError, match=part):
        merge_method(name).load()


def test_a_package_brings_a_schema_whose_rows_state_their_labels(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("note,domain\nWhere is the hat?,desk\n")
    (row,) = load_source(tmp_path / "mine.csv", "notes").prompts
    assert (row.prompt, row.domain, row.kind) == ("Where is the hat?", "desk", "benign")
    for name, got in (("text", "got str"), ("advbench-too", "got one named advbench")):
        with pytest.raises(PromptError, match=got):
            load_source(tmp_path / "mine.csv", name)
    with pytest.raises(PromptError, match=r"advbench-too, or file\.py:name.*got note;|got note$|got 'note'"):
        load_source(tmp_path / "mine.csv", "note")


def test_a_registry_without_a_group_has_what_is_ours_and_files(installed: Path) -> None:
    ours = Registry("a thing", [Row("one", "palette.registry:Row", "here")])
    assert ours.installed == {}
    assert ours.brought("two") is None
    assert ours.identity("one") is None
    assert ours.identity("nowhere.py:x") is None
    with pytest.raises(RecipeError, match=r"a thing must be one of one, or file\.py:name"):
        ours.row("two")
