"""A task of lm-eval as an objective: a trial loses what the backbone scores, less what it scores then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from palette.directions import Intervention, StrengthKernel
from palette.errors import RecipeError, SearchError
from palette.fingerprints import fingerprint_file
from palette.recipe import create_recipe
from palette.search import questions as asking
from palette.search.objectives import TrialFigures
from palette.search.questions import Questions, drawn
from palette.search.settings import TASK, SearchSettings, objective_named

pytest.importorskip("lm_eval")
ROOT = Path(__file__).parents[2]
EXAMPLE = "docs/examples/everyday.yaml"


@pytest.fixture
def task(monkeypatch):
    """The worked example, from where it is meant to be started."""
    monkeypatch.chdir(ROOT)
    return f"{TASK}{EXAMPLE}"


def stated(metric, score, filters=("none",)):
    """A task's samples of two questions, as lm-eval gives them."""
    each = {"metrics": [metric], metric: score, "doc_id": 0}
    return [{**each, "filter": name} for name in filters for _ in range(2)]


class Known:
    """A task of lm-eval, as far as it is asked what is better."""

    def __init__(self, better=True):
        self.better = better

    def higher_is_better(self):
        return {"acc": self.better}


def test_its_questions_are_drawn_by_the_seed_and_asked_under_the_edits(shared, task, tmp_path):
    some = drawn(shared.backbone, task, 6, seed=0)
    assert len(some.chosen) == 6
    assert some.chosen == drawn(shared.backbone, task, 6, seed=0).chosen
    assert some.chosen != drawn(shared.backbone, task, 6, seed=1).chosen
    every = drawn(shared.backbone, task, 100, seed=0)
    first, others = every.divided(0.25)
    assert len(every.chosen) == 12
    assert (len(first.chosen), len(others.chosen)) == (3, 9)
    assert {*first.chosen} | {*others.chosen} == {*every.chosen}
    assert every.divided(1.0)[1].lost({}) == []
    assert every.lost({}) == [0.0] * 12
    # A harness that forgot the edits, or left them on, would be caught here.
    own = every._own
    assert 0 < sum(own) < 12
    lost = every.lost(overwhelming(shared.sharing(folder=tmp_path, limit=4)))
    assert any(lost)
    assert every._scores({}) == own


def overwhelming(run):
    """Edits that leave nothing of what the model computes."""
    from palette.search.space import read_collected
    from palette.stages.collect import collect

    collect(run)
    intervention = Intervention("activation_addition", -1, StrengthKernel(2, 9, 200.0))
    return intervention.edits(read_collected(run.folder).directions)


def test_a_trial_is_told_the_mean_of_what_was_lost(task):
    score, direction = objective_named(task)
    assert direction == "minimize"
    assert score(TrialFigures({}, 0.0, {}, {task: 0.25})) == 0.25


@pytest.mark.parametrize(
    ("metric", "score", "better"), [("perplexity", 12.5, None), ("acc", 0.5, False), ("f1", "high", None)]
)
def test_a_metric_that_is_no_share_of_right_answers_is_refused_and_another_one_helps(
    monkeypatch, shared, metric, score, better
):
    one = Questions(f"{TASK}x", shared.backbone, None, {"x": Known(better)}, [("x", 0), ("x", 1)])
    monkeypatch.setattr(asking, "sampled", lambda *_, **__: {"x": stated(metric, score)})
    with pytest.raises(SearchError, match=f"score each question from 0 to 1.* got {score} of {metric}; put"):
        one.lost({})
    one = Questions(f"{TASK}x", shared.backbone, None, {"x": Known()}, [("x", 0), ("x", 1)])
    monkeypatch.setattr(asking, "sampled", lambda *_, **__: {"x": stated("acc", 1.0, filters=("a", "b"))})
    assert one.lost({}) == [0.0, 0.0], "only the first filter counts"


@pytest.mark.parametrize("text", ["task: [", "task: x\n", "nothing: here\n", "task: x\ndataset_path: json\n"])
def test_a_task_that_cannot_be_loaded_is_one_sentence(shared, written, tmp_path, monkeypatch, text):
    # A reader of JSON that is told no file reads every one below the folder that it is started in.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SearchError, match="lm-eval must be able to load a task that is an objective"
    ) as caught:
        drawn(shared.backbone, f"{TASK}{written(text)}", 4, seed=0)
    assert "\n" not in str(caught.value)


def test_a_name_that_can_be_no_task_is_told_with_the_recipe():
    def told(name):
        with pytest.raises(RecipeError) as caught:
            create_recipe({"authorise": ["medical"], "search": {"objectives": [name]}})
        return str(caught.value)

    assert "a YAML file that is there, not none.yaml" in told(f"{TASK}none.yaml")
    assert "must name a task of lm-eval" in told(TASK)


def test_without_the_extra_one_sentence_names_it(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RecipeError, match=r"pip install 'palette-llm\[eval\]'"):
        create_recipe({"authorise": ["medical"], "search": {"objectives": [task]}})


def test_it_is_known_by_its_file_and_what_that_names(tmp_path):
    path, rows = tmp_path / "mine.yaml", tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    (tmp_path / "reading.py").write_text("rows = 1\n")
    path.write_text("task: x\ncustom_dataset: !function reading.rows\ndataset_kwargs: {file: rows.jsonl}\n")
    settings = SearchSettings(objectives=(f"{TASK}{path}",))
    seen = {settings.own_files()[f"{TASK}{path}"]}
    for each in (path, rows, tmp_path / "reading.py"):
        each.write_text(each.read_text() + "# more\n")
        seen.add(settings.own_files()[f"{TASK}{path}"])
    assert len(seen) == 4
    assert SearchSettings(objectives=(f"{TASK}arc_easy",)).own_files() == {f"{TASK}arc_easy": "arc_easy"}
    assert fingerprint_file(path) not in seen
