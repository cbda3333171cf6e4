from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from palette.errors import BackboneError, JudgeError, PaletteError, RecipeError
from palette.fingerprints import fingerprint_file
from palette.judging.chat import ChatJudge
from palette.judging.classifiers import SHIPPED, PanelJudge, load_trained_judge
from palette.judging.judge import Judge, Label, checked_name, judge_named
from palette.judging.rules import RuleJudge
from palette.recipe import create_recipe
from tests.fixtures.judges import OWN, OWN_BROKEN

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
    with pytest.raises(JudgeError, match=rf"got '{name}'(; did you mean rule\?)?$"):
        judge_named(name)


@pytest.mark.parametrize("address", ["https://me:key@host/v1", "https://host/v1?key=1"])
def test_an_address_with_a_key_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must hold no key; put it into PALETTE_JUDGE_KEY"):
        checked_name(f"chat:model@{address}")


def test_what_a_name_points_at_must_exist(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"a palette-judge/1 file of features \d, got No such file"):
        judge_named(f"trained:{tmp_path / 'none'}")
    with pytest.raises(BackboneError, match=r"config\.json"):
        judge_named(f"classifier:{tmp_path}")


def test_a_recipe_names_its_judge() -> None:
    recipe = create_recipe({"authorise": ["medical"], "evaluate": {"judge": "rule"}})
    assert recipe.evaluate.judge == "rule"
    assert create_recipe({"authorise": ["medical"]}).evaluate.judge == "panel"
    with pytest.raises(RecipeError, match=r"evaluate.judge: a judge must be one of panel, rule, .* got 'no'"):
        create_recipe({"authorise": ["medical"], "evaluate": {"judge": "no"}})


class TestOwn:
    def test_a_file_gives_a_judge_that_knows_the_prefixes(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text(OWN)
        judge = judge_named(f"{path}:Judge", ("zorb nak",))
        assert isinstance(judge, Judge) and judge.fingerprint == fingerprint_file(path)
        labels = [verdict.label for verdict in judge.verdicts(["?"] * 3, ["I can't.", "zorb nak so", "so"])]
        assert labels == [Label.REFUSAL, Label.REFUSAL, Label.FULL_COMPLIANCE]

    def test_a_function_gives_one_and_a_fingerprint_that_is_stated_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text(
            "from palette.judging.rules import RuleJudge as Rule\n\ndef judge():\n    return Rule()\n"
        )
        assert judge_named(f"{path}:judge", OPENINGS).fingerprint == RuleJudge().fingerprint
        assert judge_named(f"{path}:Rule", OPENINGS).fingerprint == RuleJudge(OPENINGS).fingerprint

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("Failing", "a judge must judge every reply, got KeyError"),
            ("Short", r"Verdict for each reply, in order, got 0 for 1, of \[\]"),
            ("Wordy", r"Verdict for each reply, in order, got 1 for 1, of \['str'\]"),
            ("Numbered", "a fingerprint as text, got Numbered"),
            ("Silent", r"a judge must have verdicts\(prompts, replies\) .*, got Silent"),
            ("Asking", "must take nothing, or prefixes, got .*missing 1 required positional argument: 'key'"),
            ("Nobody", "must have what a recipe takes from it, got no Nobody"),
        ],
    )
    def test_what_is_no_judge_is_one_sentence_without_a_reply(
        self, tmp_path: Path, name: str, message: str
    ) -> None:
        path = tmp_path / "mine.py"
        path.write_text(OWN_BROKEN)
        with pytest.raises(PaletteError, match=message) as error:
            judge_named(f"{path}:{name}").verdicts(["?"], ["secret"])
        assert "secret" not in str(error.value) and "\n" not in str(error.value)

    def test_a_file_that_is_not_there_is_told_before_any_model_runs(self) -> None:
        with pytest.raises(
            RecipeError, match=r"evaluate.judge: a judge must name a file that is there, not no"
        ):
            create_recipe({"authorise": ["medical"], "evaluate": {"judge": "none.py:Judge"}})

    def test_a_judge_s_name_is_known_without_a_heavy_library(self) -> None:
        code = (
            "import sys, palette.judging.judge, palette.judging.refusal_prefixes;"
            "palette.judging.judge.checked_name('chat:model@http://localhost:1/v1');"
            "print([name for name in ('torch', 'transformers', 'numpy', 'sklearn') if name in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"
