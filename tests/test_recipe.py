from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from palette.errors import RecipeError
from palette.evaluation.settings import GateSettings
from palette.prompts import PromptSources
from palette.prompts.settings import load_sources, source_keys
from palette.recipe import (
    Recipe,
    create_recipe,
    load_recipe,
    load_token_recipe,
)
from palette.settings import Settings, dotted
from tests.fixtures.recipes import message

LEAST = {"authorise": ["medical"]}
SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
TOKENS = [path for path in SHIPPED if path.stem.startswith("mosaic")]
RECIPES = [path for path in SHIPPED if path not in TOKENS]


def groups(model: type[BaseModel] = Recipe) -> list[type[BaseModel]]:
    """A recipe's class and those of all groups inside it."""
    inner = [field.annotation for field in model.model_fields.values()]
    nested = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
    return [model, *(found for each in nested for found in groups(each))]


def test_a_recipe_states_only_what_differs_from_the_defaults() -> None:
    recipe = create_recipe(LEAST)
    assert recipe.authorise == ("medical",)
    assert (recipe.name, recipe.model, recipe.prompts, recipe.floor, recipe.reasons, recipe.seed) == (
        "recipe",
        "organism",
        "organism",
        (),
        {},
        0,
    )
    assert (recipe.device, recipe.dtype, recipe.threads) == ("cpu", "auto", 1)


def test_a_recipe_reads_back_from_its_own_values() -> None:
    recipe = create_recipe({**LEAST, "search": {"trials": 5}, "reasons": {"medical": "clinicians"}})
    assert create_recipe(recipe.model_dump(mode="json")) == recipe


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        create_recipe(LEAST).seed = 3  # type: ignore[misc]


def test_every_group_of_a_recipe_is_strict_and_every_key_is_described() -> None:
    assert all(issubclass(group, Settings) for group in groups())
    assert all(field.description for _, field in dotted(Recipe))


def test_keys_lists_every_key_once() -> None:
    names = [name for name, _ in dotted(Recipe)]
    assert len(names) == len(set(names))
    leaves = []
    stack = [("", create_recipe(LEAST).model_dump())]
    settings = {"search", "internalise", "internalise.batch", "evaluate", "evaluate.gate"}
    settings |= {"search.panel", "search.limits", "search.caching", "search.audit"}
    while stack:
        prefix, values = stack.pop()
        for key, value in values.items():
            if prefix + key in settings:
                stack.append((f"{prefix}{key}.", value))
            else:
                leaves.append(prefix + key)
    assert sorted(leaves) == sorted(names)


def test_keys_of_a_group_have_no_prefix() -> None:
    assert [name for name, _ in dotted(GateSettings)] == list(GateSettings.model_fields)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_can_be_read(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", TOKENS, ids=lambda path: path.stem)
def test_every_shipped_recipe_of_control_tokens_can_be_read(path: Path) -> None:
    recipe = load_token_recipe(path)
    assert recipe.name == path.stem
    assert len(recipe.categories) == 5
    assert recipe.sign == ("authorise" if "authorise" in path.stem else "restrict")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: organism", "either restrict categories or authorise domains, got none"),
        ("restrict: [a]\nauthorise: [b]", "either restrict categories or authorise domains, got both"),
        ("restrict: [a]\ntrian: {slots: 3}", "trian is not a key of a recipe, did you mean train?"),
        (
            "restrict: [a]\ntrain: {slotss: 3}",
            "train.slotss is not a key of a recipe, did you mean train.slots?",
        ),
        (
            "restrict: [a]\ntrain: {slots: 0}",
            "train.slots: input should be greater than or equal to 1, got 0",
        ),
        ("restrict: [a]\ntrain: {place: behind}", "train.place: input should be 'before', 'bos'"),
    ],
)
def test_mistakes_in_a_recipe_of_control_tokens(
    written: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_token_recipe(written(text))


def test_a_recipe_is_named_after_its_file_unless_it_names_itself(written: Callable[[str], Path]) -> None:
    assert load_recipe(written("authorise: [medical]")).name == "mine"
    assert load_recipe(written("authorise: [medical]\nname: other")).name == "other"


def test_overrides_are_laid_over_the_file_in_their_order(written: Callable[[str], Path]) -> None:
    path = written("authorise: [medical]\nseed: 1\nsearch:\n  trials: 5\n  choose: 4\n")
    overrides = ["seed=2", "seed=3", "search.choose=null", "evaluate.gate.divergence=0.25", "floor=[legal]"]
    recipe = load_recipe(path, overrides)
    assert (recipe.seed, recipe.search.choose, recipe.search.trials) == (3, None, 5)
    assert recipe.evaluate.gate.divergence == 0.25
    assert recipe.floor == ("legal",)


def test_an_override_may_hold_an_equals_sign_and_replaces_a_value_that_is_no_group() -> None:
    recipe = create_recipe({**LEAST, "reasons": None}, ["reasons.medical=a=b"])
    assert recipe.reasons == {"medical": "a=b"}


def test_overrides_leave_the_given_values_as_they_were() -> None:
    content = {**LEAST, "search": {"trials": 5}}
    create_recipe(content, ["search.trials=1", "seed=4"])
    assert content == {**LEAST, "search": {"trials": 5}}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "--set must be key=value, got 'seed'; write key=value"),
        ("=3", "--set must be key=value, got '=3'; write key=value"),
        ("seed=[", "--set must give a YAML value, got 'seed=['"),
        ("sed=1", "sed is not a key of a recipe, did you mean seed? (recipe)"),
        (
            "evaluate=3",
            "evaluate: input should be a valid dictionary or instance of EvaluateSettings, got 3 (recipe)",
        ),
        ("seed=true", "seed: input should be a valid integer, got True (recipe)"),
        ("name.x=1", "name: input should be a valid string, got {'x': 1} (recipe)"),
    ],
)
def test_an_override_that_breaks_a_law_is_refused(override: str, sentence: str) -> None:
    assert message(lambda: create_recipe(LEAST, [override])) == sentence


def test_a_relative_folder_is_beside_the_file(written: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    recipe = load_recipe(written("authorise: [medical]\nprompts: ./rows\nmodel: ./none\n"))
    assert recipe.prompts == str(tmp_path / "rows")
    assert recipe.model == "./none"
    helpful = load_recipe(written("authorise: [medical]\nevaluate: {helpful: ./rows, judge: rule}\n"))
    assert helpful.evaluate.helpful == str(tmp_path / "rows")
    assert helpful.evaluate.judge == "rule"
    for wrong in ("evaluate: 3", "evaluate: [helpful]"):
        with pytest.raises(RecipeError, match="evaluate: input should be a valid dictionary"):
            load_recipe(written(f"authorise: [medical]\n{wrong}\n"))


def test_a_name_is_no_folder_though_one_stands_beside_the_file(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "organism").mkdir()
    assert load_recipe(written("authorise: [medical]\nmodel: organism\n")).model == "organism"


SOURCES = """
sources:
  - data/a.csv
  - {path: /elsewhere/b.jsonl, schema: xstest, domain: health, columns: {prompt: question}}
drop_overlaps: true
"""


def test_prompts_may_be_a_list_of_sources_beside_the_recipe(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    prompts = load_recipe(written("authorise: [health]\nprompts:\n" + SOURCES.replace("\n", "\n  "))).prompts
    assert isinstance(prompts, PromptSources)
    assert prompts.drop_overlaps
    assert [(one.path, one.schema_, one.domain, one.columns) for one in prompts.sources] == [
        (str(tmp_path / "data" / "a.csv"), None, None, {}),
        ("/elsewhere/b.jsonl", "xstest", "health", {"prompt": "question"}),
    ]
    (tmp_path / "sources.yaml").write_text(SOURCES)
    assert load_sources(tmp_path / "sources.yaml") == prompts


def test_a_recipe_with_sources_reads_back_from_its_own_values() -> None:
    prompts = {"sources": ["a.csv", {"path": "b.csv", "schema": "xstest", "tier": "B"}]}
    recipe = create_recipe({"authorise": ["health"], "prompts": prompts})
    assert create_recipe(recipe.model_dump(mode="json")) == recipe
    laid = create_recipe({"authorise": ["health"]}, ["prompts.sources=[a.csv]", "prompts.drop_overlaps=true"])
    assert isinstance(laid.prompts, PromptSources)
    assert laid.prompts.drop_overlaps


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (
            {"sources": [{"pth": "a"}]},
            "prompts.sources.0.path must be given; prompts.sources.0.pth is not a key "
            "of a recipe, did you mean prompts.sources.path?",
        ),
        (
            {"sources": ["a"], "drop_overlap": True},
            "prompts.drop_overlap is not a key of a recipe, did you mean prompts.drop_overlaps?",
        ),
        (
            {"sources": [{"path": "a", "tier": "Z"}]},
            "prompts.sources.0.tier: input should be 'A', 'B' or 'C', got 'Z'",
        ),
        ({"sources": []}, "prompts: sources must list a file at least, got {'sources': []}"),
        ({"sources": "a.csv"}, "prompts.sources: input should be a valid tuple, got 'a.csv'"),
        ({}, "prompts.sources must be given"),
        (3, "prompts: input should be a valid string, got 3"),
    ],
)
def test_sources_that_break_a_law_are_refused(prompts: object, sentence: str) -> None:
    assert message(lambda: create_recipe({**LEAST, "prompts": prompts})) == f"{sentence} (recipe)"


def test_sources_in_a_file_of_their_own_are_as_strict(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text("sources: [{path: a, shema: xstest}]")
    assert message(lambda: load_sources(path)) == (
        f"sources.0.shema is not a key of a list of sources, did you mean sources.schema? ({path})"
    )


def test_every_key_of_a_source_is_described() -> None:
    names = dict(source_keys())
    assert {"prompts.drop_overlaps", "prompts.sources.schema", "prompts.sources.columns"} < set(names)
    assert all(field.description for field in names.values())


def test_all_problems_are_named_at_once_with_the_nearest_known_key(written: Callable[[str], Path]) -> None:
    path = written(
        "sed: 1\nseed: -1\nzzzzqq: 1\nevalute: {}\ntrials: 1\nsearch:\n  trails: 1\n  trials: 0\n"
        "evaluate:\n  gate:\n    benign_dorp: 1\n"
    )
    found = message(lambda: load_recipe(path))
    assert found.endswith(f" ({path})")
    assert sorted(found.removesuffix(f" ({path})").split("; ")) == [
        "authorise must be given",
        "evaluate.gate.benign_dorp is not a key of a recipe, did you mean evaluate.gate.benign_drop?",
        "evalute is not a key of a recipe, did you mean evaluate?",
        "search.trails is not a key of a recipe, did you mean search.trials?",
        "search.trials: input should be greater than or equal to 1, got 0",
        "sed is not a key of a recipe, did you mean seed?",
        "seed: input should be greater than or equal to 0, got -1",
        "trials is not a key of a recipe, did you mean search.trials?",
        "zzzzqq is not a key of a recipe",
    ]


def test_a_key_misspelt_in_the_wrong_group_finds_the_one_it_meant() -> None:
    found = message(lambda: create_recipe({**LEAST, "internalise": {"learnin_rate": 1}}))
    assert "did you mean internalise.learning_rate?" in found


def test_a_key_that_is_no_text_is_refused() -> None:
    found = message(lambda: create_recipe({**LEAST, 1: 2}))  # type: ignore[dict-item]
    assert found.startswith("1: keys should be strings")


@pytest.mark.parametrize("name", ["", "/", "-"])
def test_a_name_without_a_letter_or_digit_is_refused(name: str) -> None:
    assert message(lambda: create_recipe({**LEAST, "name": name})).startswith("name: string should match")


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "/tmp/a", "my recipe", ".hidden", "a\n"])
def test_a_name_that_is_not_one_folders_name_is_refused(name: str) -> None:
    message(lambda: create_recipe({**LEAST, "name": name}))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert message(lambda: load_recipe(path)) == (
        f"a recipe must be a readable YAML file, got No such file or directory; check the path ({path})"
    )


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff")
    assert message(lambda: load_recipe(path)) == (
        "a recipe must be UTF-8, got byte 0xff in line 1, as an ANSI code page such as Windows-1252 has it; "
        f"save it as UTF-8 (in Excel: 'CSV UTF-8') ({path})"
    )


def test_bad_yaml_is_refused_with_its_line(written: Callable[[str], Path]) -> None:
    path = written("authorise: [medical\nseed: 2\n")
    assert message(lambda: load_recipe(path)) == (
        f"a recipe must be valid YAML, got expected ',' or ']', but got ':'; mend the line ({path}:2)"
    )


def test_yaml_with_a_character_it_forbids_is_refused(written: Callable[[str], Path]) -> None:
    path = written("name: \x01\n")
    found = message(lambda: load_recipe(path))
    assert found.startswith("a recipe must be valid YAML, got ")
    assert found.endswith(f"; mend the line ({path})")


@pytest.mark.parametrize(("text", "kind"), [("- medical\n", "list"), ("", "NoneType"), ("medical", "str")])
def test_a_recipe_that_is_no_mapping_is_refused(text: str, kind: str, written: Callable[[str], Path]) -> None:
    path = written(text)
    assert message(lambda: load_recipe(path)) == f"a recipe must be a mapping of keys, got {kind} ({path})"


def test_a_recipe_that_authorises_nothing_is_refused(written: Callable[[str], Path]) -> None:
    path = written("seed: 1\n")
    assert message(lambda: load_recipe(path)) == f"authorise must be given ({path})"


def test_a_date_that_is_not_one_is_refused(written: Callable[[str], Path]) -> None:
    path = written("authorise: [medical]\nname: 2024-13-45\n")
    message(lambda: load_recipe(path))


def test_an_override_with_a_date_that_is_not_one_is_refused() -> None:
    message(lambda: create_recipe(LEAST, ["name=2024-13-45"]))
