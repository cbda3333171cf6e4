from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from palette.prompts import PromptSources
from palette.prompts.settings import SourceSettings, source_keys
from palette.recipe import create_recipe
from tests.fixtures.recipes import message


def source(**keys: Any) -> SourceSettings:
    return SourceSettings.model_validate({"path": "a.csv", **keys})


def test_values_are_kept_in_one_spelling() -> None:
    given = source(where={"x": True, "y": [1, "1.0", "a"]}, map={"kind": {True: "benign", 0: "restricted"}})
    assert given.where == {"x": ("true",), "y": ("1", "1", "a")}
    assert given.map_ == {"kind": {"true": "benign", "0": "restricted"}}


def test_a_source_with_every_key_reads_back_from_a_recipe_s_values() -> None:
    keys = {
        "path": "hub",
        "schema": "rows",
        "config": "default",
        "header": ["a", "b"],
        "columns": {"kind": "a"},
        "where": {"b": [1, 2]},
        "map": {"kind": {False: "benign"}},
        "template": "{a}",
        "longest": 9,
        "limit": 3,
        **{"domain": "zoo", "kind": "benign", "tier": "A", "hazard": "h", "split": "test"},
        **{"name": "n", "licence": "l", "origin": "o"},
    }
    assert {key.rpartition(".")[2] for key, _ in source_keys()} - {"drop_overlaps"} == set(keys)
    recipe = create_recipe({"authorise": ["zoo"], "prompts": {"sources": [keys]}})
    assert isinstance(recipe.prompts, PromptSources)
    assert create_recipe(recipe.model_dump(mode="json")) == recipe


def test_every_example_of_the_documentation_is_a_list_of_sources() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) == 4
    for example in examples:
        content = {"sources": example} if isinstance(example, list) else example.get("prompts", example)
        assert PromptSources.model_validate(content).sources


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("limit", 0, "prompts.sources.0.limit: input should be greater than or equal to 1, got 0"),
        ("longest", 0, "prompts.sources.0.longest: input should be greater than or equal to 1, got 0"),
        ("map", {"kind": "a"}, "prompts.sources.0.map.kind: input should be a valid dictionary, got 'a'"),
        (
            "map",
            {"kind": {"1": "benign", 1: "restricted"}},
            "prompts.sources.0.map.kind: a value must have one entry, got {'1': 'benign', 1: 'restricted'}",
        ),
        (
            "map",
            {"kind": {"a": True}},
            "prompts.sources.0.map.kind.a: input should be a valid string, got True",
        ),
        (
            "where",
            {"kind": []},
            "prompts.sources.0.where.kind: value should have at least 1 item after validation, not 0, got []",
        ),
        (
            "template",
            "Why?",
            "prompts.sources.0.template: a template must name columns in braces, as in {question}, got "
            "'Why?'",
        ),
        (
            "limits",
            1,
            "prompts.sources.0.limits is not a key of a recipe, did you mean prompts.sources.limit?",
        ),
        ("wher", {}, "prompts.sources.0.wher is not a key of a recipe, did you mean prompts.sources.where?"),
    ],
)
def test_a_key_that_breaks_its_law_is_refused(key: str, value: Any, sentence: str) -> None:
    content = {"authorise": ["zoo"], "prompts": {"sources": [{"path": "a.csv", key: value}]}}
    assert message(lambda: create_recipe(content)) == f"{sentence} (recipe)"
