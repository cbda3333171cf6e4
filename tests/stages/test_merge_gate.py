"""What several adapters' reports say together: one recipe to measure a merge by, and weights that do best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palette.authorisation import Role
from palette.errors import AuthorisationError, RecipeError
from palette.judging.rules import RuleJudge
from palette.recipe import create_recipe
from palette.stages.merge import merge, search_weights, shared_recipe, shares, unmeasurable
from tests.fixtures.noise import noise


def reported(folder: Path, domain: str, **more: Any) -> Path:
    recipe = create_recipe({"name": domain, "authorise": [domain], **more})
    folder.mkdir()
    report = {"provenance": {"recipe": recipe.model_dump(mode="json")}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_domains_floors_and_reasons_are_united(tmp_path: Path) -> None:
    reasons = {"legal": "counsel on staff"}
    paths = [
        reported(tmp_path / "a", "medical", floor=["weapons"]),
        reported(tmp_path / "b", "legal", reasons=reasons),
    ]
    content, reason = shared_recipe(paths)
    assert reason == ""
    assert content is not None
    assert (content["authorise"], content["floor"]) == (["legal", "medical"], ["weapons"])
    assert (content["reasons"], content["model"]) == (reasons, "organism")


def test_recipes_of_other_models_share_nothing(tmp_path: Path) -> None:
    paths = [
        reported(tmp_path / "a", "medical"),
        reported(tmp_path / "b", "legal", model="organism/shared"),
    ]
    assert shared_recipe(paths) == (None, "the adapters were measured by recipes that differ in model")


def test_recipes_behind_other_system_prompts_share_nothing(tmp_path: Path) -> None:
    framed = [reported(tmp_path / name, name, system="Be brief.") for name in ("medical", "legal")]
    content, _ = shared_recipe(framed)
    assert content is not None
    assert content["system"] == "Be brief."
    plain = reported(tmp_path / "old", "finance")
    report = json.loads((plain / "report.json").read_text())
    del report["provenance"]["recipe"]["system"]
    (plain / "report.json").write_text(json.dumps(report))
    reason = "the adapters were measured by recipes that differ in system"
    assert shared_recipe([*framed, plain]) == (None, reason)
    assert shared_recipe([plain, reported(tmp_path / "new", "finance")])[1] == ""


def test_suites_of_one_adapter_are_not_the_merge_s(tmp_path: Path) -> None:
    paths = [
        reported(tmp_path / "a", "medical", evaluate={"suites": ["medical.json"]}),
        reported(tmp_path / "b", "legal"),
    ]
    content, reason = shared_recipe(paths)
    assert reason == ""
    assert content is not None
    assert create_recipe({"name": "merge", **content}).evaluate.suites == ()


def test_an_adapter_without_a_report_says_nothing(tmp_path: Path) -> None:
    content, reason = shared_recipe([reported(tmp_path / "a", "medical"), tmp_path / "b.safetensors"])
    assert content is None
    assert reason == f"no report beside {tmp_path / 'b.safetensors'} says how it was measured"


def test_what_one_opens_another_may_not_have_put_on_the_floor(tmp_path: Path) -> None:
    paths = [
        reported(tmp_path / "a", "medical", floor=["legal"]),
        reported(tmp_path / "b", "legal"),
    ]
    content, _ = shared_recipe(paths)
    assert content is not None
    with pytest.raises(AuthorisationError, match="legal"):
        unmeasurable(paths, content)


def test_a_recipe_of_another_version_leaves_the_gate_out(tmp_path: Path) -> None:
    path = reported(tmp_path / "a", "medical")
    content, _ = shared_recipe([path])
    assert content is not None
    assert "hops is not a key of a recipe" in unmeasurable([path], {**content, "evaluate": {"hops": 1}})


def test_prompts_that_have_moved_leave_the_gate_out(tmp_path: Path) -> None:
    path = reported(tmp_path / "a", "medical", prompts=str(tmp_path / "gone"))
    content, _ = shared_recipe([path])
    assert content is not None
    assert "gone" in unmeasurable([path], content)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(RecipeError, match="a merge must have at least one adapter"):
        merge([])


def test_weights_of_adapters_without_reports_are_not_searched(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="weights can be searched for a weighted sum of adapters beside"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", trials=3)


def test_shares_are_of_what_each_role_must_not_do():
    cells = {(Role.TARGET, "a"): [0, 1], (Role.PRESERVE, "b"): [2, 3], (Role.BENIGN, "a"): [4, 5]}
    before = [True, True, True, True, False, True]
    after = [True, False, False, True, True, True]
    assert shares(cells, before, after) == [0.5, 0.5, 0.5]


def test_an_adapter_that_breaks_the_model_is_given_little_weight(shared):
    broken = noise(shared.backbone, ".mlp.")
    (weight,) = search_weights(shared, RuleJudge(), [broken], 12, 12, prompts=2)
    assert 0 <= weight < 1
    assert search_weights(shared, RuleJudge(), [broken], 1, 12, prompts=2) == (pytest.approx(1.0),)
