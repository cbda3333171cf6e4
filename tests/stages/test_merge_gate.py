"""What several adapters' reports say together: one recipe to measure a merge by, and weights that do best."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from palette.adapters.writing import write_adapter
from palette.authorisation import Role
from palette.errors import AuthorisationError, RecipeError
from palette.judging.rules import RuleJudge
from palette.recipe import create_recipe
from palette.run import Run
from palette.stages.evaluate import report_on
from palette.stages.merge import merge, search_weights, shared_recipe, shares, unmeasurable
from tests.fixtures.noise import noise
from tests.fixtures.sighted import RECIPE, few_prompts, in_words


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


@pytest.fixture(scope="module")
def measured(sighted, tmp_path_factory):
    """An adapter of a run on words alone, and one of a run on words and pictures, beside their reports."""
    folder, prompts = tmp_path_factory.mktemp("measured"), Path(sighted.recipe.prompts)
    words = in_words(prompts, folder / "words")
    found = []
    for seed, (domain, own) in enumerate((("medical", words), ("legal", prompts))):
        content = {**RECIPE, "name": domain, "authorise": [domain], "prompts": str(own)}
        run = Run(create_recipe(content), folder / domain)
        vars(run)["backbone"] = sighted.backbone
        adapter = noise(run.backbone, ".mlp.", rank=1, scale=0.05, seed=seed)
        write_adapter(run.folder, adapter)
        found.append((run.folder, report_on(run, adapter, RuleJudge())))
    return found


@pytest.mark.slow
def test_adapters_of_words_and_of_pictures_are_gated_together_in_every_cell(measured, tmp_path):
    (words, alone), (pictures, both) = measured
    assert not alone.cells and set(both.cells) == {"text", "blank", "unrelated", "picture"}
    merged = merge([words, pictures], tmp_path / "out")
    assert merged.gate is not None, merged.gate_not_run
    rules = {rule["name"] for rule in merged.gate["rules"]}
    for cell in both.cells:
        assert {f"cell_{kind}.{cell}" for kind in ("target", "preserved", "floor")} <= rules
    assert {"target_refusal.legal", "target_refusal.medical"} <= rules
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["provenance"]["recipe"]["prompts"] == both.provenance.recipe["prompts"]


@pytest.mark.slow
def test_prompts_that_do_not_hold_the_others_leave_the_gate_out(measured, tmp_path):
    (words, _), (pictures, _) = measured
    for path in (words, pictures):
        shutil.copytree(path, tmp_path / path.name)
    found = tmp_path / "legal" / "report.json"
    report = json.loads(found.read_text())
    for prompts in (tmp_path / "gone", few_prompts(tmp_path / "others", 2, 2, 2)):
        report["provenance"]["recipe"]["prompts"] = str(prompts)
        found.write_text(json.dumps(report))
        differ = (None, "the adapters were measured by recipes that differ in prompts")
        assert shared_recipe([tmp_path / "medical", tmp_path / "legal"]) == differ


def test_an_adapter_that_breaks_the_model_is_given_little_weight(shared):
    broken = noise(shared.backbone, ".mlp.")
    (weight,) = search_weights(shared, RuleJudge(), [broken], 12, 12, prompts=2)
    assert 0 <= weight < 1
    assert search_weights(shared, RuleJudge(), [broken], 1, 12, prompts=2) == (pytest.approx(1.0),)
