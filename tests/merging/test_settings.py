"""What a merge is told: settings and merge recipes, and the sentences that refuse the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palette.merging.methods import METHODS
from palette.merging.settings import REMOVED, MergeSettings, MergeSource, merge_settings
from tests.fixtures.recipes import message

PAIR = [Path("law"), Path("health")]


def test_settings_are_the_options_with_overrides_over_them() -> None:
    given = {"energy": 0.5, "method": "ties"}
    found = merge_settings(PAIR, given, ["merge.rank=3", "merge.options.density=0.25"])
    sources = tuple(MergeSource(path=path) for path in PAIR)
    assert found == MergeSettings(
        adapters=sources, method="ties", energy=0.5, options={"density": 0.25}, rank=3
    )
    assert found.method_options["density"] == 0.25


def test_all_problems_are_named_at_once() -> None:
    given = {"energy": 5, "enrgy": 1, "method": "sum", "weights": [float("nan"), 1]}
    found = message(lambda: merge_settings(PAIR, given, ["merge.rank=0"]))
    assert sorted(found.removesuffix(" (merge)").split("; ")) == [
        "energy: input should be less than or equal to 1, got 5",
        "enrgy is not a key of a merge, did you mean energy?",
        f"method: a merge method must be one of {', '.join(METHODS)}, or file.py:name, got 'sum'",
        "rank: input should be greater than or equal to 1, got 0",
        "weights.0: input should be a finite number, got nan",
    ]


def test_keys_of_a_run_are_refused() -> None:
    found = message(lambda: merge_settings(PAIR, {}, ["seed=3", "merge.rank=2", "floor=[a]"]))
    assert found == "seed is not a key of a merge; floor is not a key of a merge (merge)"


def test_a_key_that_was_removed_says_what_replaced_it() -> None:
    assert message(lambda: merge_settings(PAIR, {}, ["merge.workers=2"])) == (
        "merge.workers is no longer a key: it is derived from the cores (merge)"
    )
    assert set(REMOVED) == {"merge", "merge.workers", "merge.prompts"}
    assert not {f"merge.{key}" for key in MergeSettings.model_fields} & set(REMOVED)


def test_weights_are_one_for_each_adapter() -> None:
    assert [source.weight for source in merge_settings(PAIR, {"weights": [0.7, -1]}).sources] == [0.7, -1]
    assert message(lambda: merge_settings(PAIR, {"weights": [1]})) == (
        "a merge must have one weight for each adapter, got 1 for 2 (merge.weights)"
    )
    assert message(lambda: merge_settings([])) == "a merge must have at least one adapter, got none"


def test_a_merge_recipe_names_its_adapters_beside_it(written: Callable[[str], Path]) -> None:
    path = written(
        "method: ties\noptions: {density: 0.3}\nadapters:\n  - runs/law\n"
        "  - {path: /elsewhere/health, weight: 0.5, modules: ['*.mlp.*', '!*.0.*'], moments: m.safetensors}\n"
    )
    settings = merge_settings([path], {"dtype": "bfloat16"}, ["merge.rank=4", "options.density=0.4"])
    assert (settings.method, settings.options, settings.rank) == ("ties", {"density": 0.4}, 4)
    assert settings.model_fields_set == {"adapters", "method", "options", "rank", "dtype"}
    assert settings.sources == [
        MergeSource(path=path.parent / "runs" / "law"),
        MergeSource(
            path=Path("/elsewhere/health"),
            weight=0.5,
            modules=("*.mlp.*", "!*.0.*"),
            moments=path.parent / "m.safetensors",
        ),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("method: ties\n", "a merge must have at least one adapter, got none"),
        ("adapters: []\n", "a merge must have at least one adapter, got none"),
        ("adapters: [{weight: 2}]\n", "adapters.0.path must be given"),
        ("adapters: [a]\nweights: [1, 2]\n", "a merge must have one weight for each adapter, got 2 for 1"),
        (
            "adapters: [{path: a, wieght: 2}]\n",
            "adapters.0.wieght is not a key of a merge, did you mean adapters.weight?",
        ),
    ],
)
def test_a_merge_recipe_is_strict(text: str, expected: str, written: Callable[[str], Path]) -> None:
    assert message(lambda: merge_settings([written(text)])).startswith(expected)


def test_mistakes_are_told_before_torch_is_loaded() -> None:
    code = (
        "import sys; from palette.merging.settings import merge_settings\n"
        "try: merge_settings(['a', 'b'], {'method': 'ties', 'options': {'densty': 0.3}})\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == (
        "densty is not a key of a merge by ties, did you mean density? (merge.options) False\n"
    )
