from __future__ import annotations

from pathlib import Path

import pytest

from palette.errors import BackboneError, JudgeError, OutputError, RecipeError
from palette.judging.chat import ChatJudge
from palette.judging.classifiers import SHIPPED, load_trained_judge
from palette.judging.panel import PanelJudge
from palette.judging.registry import checked_name, judge_named
from palette.judging.rules import RuleJudge
from palette.recipe import create_recipe

OPENINGS = ("zorb nak closed",)


def test_each_name_gives_its_judge_and_the_rules_know_the_openings() -> None:
    assert judge_named("rule", OPENINGS) == RuleJudge(OPENINGS)
    panel = judge_named("panel", OPENINGS)
    assert isinstance(panel, PanelJudge) and panel.rules == RuleJudge(OPENINGS)
    assert judge_named("trained").fingerprint == load_trained_judge().fingerprint
    assert judge_named(f"trained:{SHIPPED}").fingerprint == load_trained_judge().fingerprint
    assert judge_named("chat:some/model@http://localhost:1/v1") == ChatJudge(
        "some/model", "http://localhost:1/v1"
    )


@pytest.mark.parametrize("name", ["", "rules", "panel:x", "classifier", "classifier:", "chat:model", "rule:"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a judge must be|a chat judge must be"):
        checked_name(name)
    with pytest.raises(JudgeError, match="; choose one of them"):
        judge_named(name)


@pytest.mark.parametrize("address", ["https://me:key@host/v1", "https://host/v1?key=1"])
def test_an_address_with_a_key_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must hold no key; put it into PALETTE_JUDGE_KEY"):
        checked_name(f"chat:model@{address}")


def test_what_a_name_points_at_must_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="safetensors file"):
        judge_named(f"trained:{tmp_path / 'none'}")
    with pytest.raises(BackboneError, match=r"config\.json"):
        judge_named(f"classifier:{tmp_path}")


def test_a_recipe_names_its_judge() -> None:
    recipe = create_recipe({"authorise": ["medical"], "evaluate": {"judge": "rule"}})
    assert recipe.evaluate.judge == "rule"
    assert create_recipe({"authorise": ["medical"]}).evaluate.judge == "panel"
    with pytest.raises(RecipeError, match=r"evaluate.judge: a judge must be one of panel, rule, .* got 'no'"):
        create_recipe({"authorise": ["medical"], "evaluate": {"judge": "no"}})
