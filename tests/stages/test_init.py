"""A recipe for somebody's own model and prompts: it loads as it is written, and nothing is overwritten."""

from __future__ import annotations

import json

import pytest
import yaml

from palette.errors import OutputError, PromptError, RecipeError
from palette.recipe import load_recipe
from palette.stages.init import init


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "mine" / "prompts"
    folder.mkdir(parents=True)
    for domain in ("gardens", "music"):
        rows = [
            {"id": f"{domain}-{n}", "prompt": f"{domain} {n}", "kind": kind}
            for n, kind in enumerate(["restricted", "benign"])
        ]
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_recipe_loads_from_anywhere(prompts, monkeypatch):
    folder = prompts.parent
    model = folder / "model"
    model.mkdir()
    monkeypatch.chdir(folder)
    written = init(folder, "model", "prompts", ["music"])
    assert written["missing"] == []
    assert written["domains"] == ["gardens", "music"]
    monkeypatch.chdir("/")
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.authorise == ("music",)
    assert recipe.model == str(model)
    assert recipe.prompts == str(prompts)


def test_what_is_outside_is_stated_whole(prompts, tmp_path):
    init(tmp_path / "other", "organism", str(prompts), ["gardens"])
    recipe = load_recipe(tmp_path / "other" / "recipe.yaml")
    assert (recipe.model, recipe.prompts) == ("organism", str(prompts))


@pytest.mark.parametrize("name", ["a model", "v1: the #2 model", "ünïcode", "it's", "no", "1e3"])
def test_any_folder_s_name_is_read_back(tmp_path, name):
    (tmp_path / name).mkdir()
    init(tmp_path, str(tmp_path / name), "organism", ["medical"])
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.model == str(tmp_path / name)
    assert recipe.authorise == ("medical",)


def test_what_is_still_to_be_set_is_said(tmp_path):
    written = init(tmp_path / "new")
    assert written["missing"] == ["model", "prompts", "authorise"]
    content = yaml.safe_load((tmp_path / "new" / "recipe.yaml").read_text())
    assert content["prompts"] == "./prompts"
    assert content["authorise"] == []


def test_the_prompts_beside_it_are_read_unasked(prompts):
    assert init(prompts.parent)["domains"] == ["gardens", "music"]
    assert "of gardens, music" in (prompts.parent / "recipe.yaml").read_text()


def test_nothing_is_written_where_something_is_wrong(prompts):
    folder = prompts.parent
    with pytest.raises(RecipeError, match="must be one of gardens, music, got films"):
        init(folder, "organism", str(prompts), ["films"])
    (prompts / "music.jsonl").write_text("{")
    with pytest.raises(PromptError):
        init(folder, "organism", str(prompts), ["gardens"])
    assert not (folder / "recipe.yaml").exists()


def test_a_recipe_is_not_overwritten(prompts):
    folder = prompts.parent
    (folder / "recipe.yaml").write_text("model: mine\n")
    with pytest.raises(OutputError, match="a recipe is written where there is none"):
        init(folder, "organism", str(prompts), ["music"])
    assert (folder / "recipe.yaml").read_text() == "model: mine\n"
