"""The suite as YAML: what it may say, and one sentence for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from palette.errors import RecipeError
from palette.suites.schema import known_keys, load_suite

SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "suites").glob("*.yaml"))
GOOD = "measures:\n  - {kind: over_refusal, prompts: x.csv, schema: xstest}\n"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_suites_can_be_read(path):
    suite = load_suite(path)
    assert suite.name == path.stem
    assert suite.measures


def test_there_are_shipped_suites():
    assert len(SHIPPED) == 4


def test_keys_of_a_measure_may_be_set(written):
    suite = load_suite(written(GOOD), ["measures.0.limit=7", "threads=2"])
    assert suite.measures[0].limit == 7
    assert suite.measures[0].layout == "xstest"
    assert suite.threads == 2
    assert suite.name == "board"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("measurs: []\n",
         ["measurs is not a key of a suite, did you mean measures?", "measures must be given"]),
        ("measures: []\n", ["measures: tuple should have at least 1 item"]),
        ("measures: [{kind: over_refusal, prompts: x, limt: 3}]\n",
         ["measures.0.over_refusal.limt is not a key of a suite, did you mean limit?"]),
        ("measures: [{kind: over_refusals, prompts: x}]\n",
         ["measures.0.kind must be one of 'refusal_kept'", "got 'over_refusals'"]),
        ("measures: [{prompts: x}]\n", ["measures.0.kind must be given"]),
        ("measures: [{kind: over_refusal}]\n", ["measures.0.over_refusal.prompts must be given"]),
        ("measures: [{kind: utility, data: mmlu, task: chess}]\n", ["measures.0.utility.task", "'gsm8k'"]),
        ("measures: [{kind: knowledge, data: mmlu, domain: magic}]\n",
         ["knowledge has subjects for medical", "got 'magic'; give subjects"]),
        ("measures: [{kind: perplexity}]\n", ["perplexity must be of a text or of prompts"]),
        ("measures: [{kind: perplexity, text: a}, {kind: perplexity, text: b}]\n",
         ["measures must have different names, got 'perplexity' twice; give each a name"]),
        ("measures: [{kind: over_refusal, prompts: x, name: a b}]\n", ["name", "pattern"]),
        ("- a\n", ["a suite must be a mapping of keys, got list"]),
        ("measures: [\n", ["a suite must be valid YAML", "board.yaml:"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(written, text, parts):
    path = written(text)
    with pytest.raises(RecipeError) as caught:
        load_suite(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    assert all(part in sentence for part in parts), sentence


def test_a_measure_that_is_not_there_cannot_be_set(written):
    with pytest.raises(RecipeError, match="--set must count a list's entries from 0 to 0"):
        load_suite(written(GOOD), ["measures.3.limit=7"])


def test_a_missing_file(tmp_path):
    with pytest.raises(RecipeError, match="a suite must be a readable YAML file, got No such file"):
        load_suite(tmp_path / "none.yaml")


def test_every_key_is_described():
    assert "schema" in known_keys()
    assert "layout" not in known_keys()
    assert len(known_keys()) == len(set(known_keys()))
