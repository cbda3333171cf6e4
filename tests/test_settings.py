from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from palette import recipe, settings
from palette.recipe import create_recipe, load_recipe
from palette.settings import Settings, dotted, override, read_yaml, settled
from tests.fixtures.recipes import message


class Inner(Settings):
    rank: int = Field(8, ge=1)


class Outer(Settings):
    seed: int = Field(0, ge=0)
    inner: Inner = Inner()


KNOWN = ["seed", "inner", "inner.rank"]
REMOVED = {"inner.alpha": "it is twice the rank", "outer": "it is derived from the model"}


def test_a_removed_key_says_what_replaced_it_beside_all_other_errors() -> None:
    values = {"seed": -1, "sed": 1, "inner": {"rank": 0, "alpha": 16}, "outer": {"any": 1, "more": 2}}
    found = message(lambda: settled(Outer, values, "mine.yaml", KNOWN, removed=REMOVED))
    assert found.endswith(" (mine.yaml)")
    assert sorted(found.removesuffix(" (mine.yaml)").split("; ")) == [
        "inner.alpha is no key of a recipe any more: it is twice the rank",
        "inner.rank: input should be greater than or equal to 1, got 0",
        "outer is no key of a recipe any more: it is derived from the model",
        "sed is not a key of a recipe, did you mean seed?",
        "seed: input should be greater than or equal to 0, got -1",
    ]


def test_keys_of_a_group_that_is_gone_are_told_one_by_one() -> None:
    removed = {"inner.panel.rung": "it is a quarter", "inner.panel.deep.share": "it is derived"}
    values = {"inner": {"panel": {"rung": 1, "deep": {"share": 2}, "rank": 3}}}
    assert message(lambda: settled(Outer, values, "here", KNOWN, removed=removed)) == (
        "inner.panel.rung is no key of a recipe any more: it is a quarter; "
        "inner.panel.deep.share is no key of a recipe any more: it is derived; "
        "inner.panel.rank is not a key of a recipe, did you mean inner.rank? (here)"
    )


def test_a_removed_key_that_came_back_is_a_key() -> None:
    values = {"inner": {"rank": 2}}
    assert settled(Outer, values, "here", KNOWN, removed={"inner.rank": "gone"}).inner.rank == 2


def test_a_removed_key_is_told_by_the_recipe_and_by_set(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "REMOVED", {"internalise.once": "it is now"})
    path = written("authorise: [medical]\ninternalise: {once: 1}\n")
    sentence = "internalise.once is no key of a recipe any more: it is now"
    assert message(lambda: load_recipe(path)) == f"{sentence} ({path})"
    least = {"authorise": ["medical"]}
    assert message(lambda: create_recipe(least, ["internalise.once=2"])) == f"{sentence} (recipe)"


def test_no_removed_key_is_a_key_still() -> None:
    assert not set(recipe.REMOVED) & set(dict(dotted(recipe.Recipe)))


def refuses_what_stands_twice(read: Callable[[Path], object], written: Callable[[str], Path]) -> None:
    path = written("seed: 1\nmerge:\n  rank: 2\n  energy: 1\n  rank: 3\n")
    assert message(lambda: read(path)) == (
        f"a recipe must be valid YAML, got the key rank twice, in lines 3 and 5; mend the line ({path}:5)"
    )


def test_a_key_that_stands_twice_is_refused_with_its_line(written: Callable[[str], Path]) -> None:
    refuses_what_stands_twice(read_yaml, written)
    assert message(lambda: override({}, "merge={rank: 2, rank: 3}")) == (
        "--set must give a YAML value, got 'merge={rank: 2, rank: 3}'"
    )


def test_a_loader_that_takes_the_last_of_two_is_caught(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_StrictLoader", yaml.SafeLoader)
    with pytest.raises(pytest.fail.Exception):
        refuses_what_stands_twice(read_yaml, written)


def test_a_merge_key_may_be_overridden_at_any_depth(written: Callable[[str], Path]) -> None:
    path = written(
        "base: &base {rank: 1, seed: 1}\ndeep:\n  own: &own {<<: *base, rank: 2}\nlast: {<<: *own, seed: 3}\n"
    )
    assert read_yaml(path)["last"] == {"rank": 2, "seed": 3}
    assert read_yaml(path)["deep"]["own"] == {"rank": 2, "seed": 1}


def test_keys_of_two_kinds_are_two_keys() -> None:
    content = {"rows": {}}
    override(content, 'rows={1: a, "1": b}')
    assert content["rows"] == {1: "a", "1": "b"}


def test_a_byte_order_mark_is_read_away(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("authorise: [medical]\nseed: 3\n", encoding="utf-8-sig")
    assert read_yaml(path) == {"authorise": ["medical"], "seed": 3}
    assert load_recipe(path).seed == 3


def test_settings_and_the_vocabulary_are_imported_without_torch() -> None:
    code = (
        "import sys, palette.settings, palette.prompts, palette.authorisation; print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key a twice, in lines 1 and 3"),
        ("x: {a: 1, 'a': 2}\n", "the key a twice, in lines 1 and 1"),
        ("- a\n- {b: 1,\n   b: 2}\n", "the key b twice, in lines 2 and 3"),
        (
            "a: 1\na: 2\na: 3\nb: 1\nb: 2\n",
            "the key a 3 times, in lines 1 and 2 and 3; the key b twice, in lines 4 and 5",
        ),
        ('a: "\\ud83d"\n', "half a character (a lone surrogate)"),
        ('a: "\\0"\n', "a NUL"),
        ("a: &a [*a]\n", "aliases that stand for more than can be read"),
        ("a: !!int x\n", "ValueError"),
        ("a: !!timestamp x\n", "AttributeError"),
        ("[" * 5000, "RecursionError"),
    ],
)
def test_what_is_no_yaml_is_one_sentence(text: str, told: str, written: Callable[[str], Path]) -> None:
    assert f"must be valid YAML, got {told}; mend the line (" in message(lambda: read_yaml(written(text)))


def test_escapes_of_json_are_read_as_the_character_that_they_are(written: Callable[[str], Path]) -> None:
    assert read_yaml(written('a: "\\ud83d\\ude00"\n')) == {"a": "\U0001f600"}


def test_aliases_that_grow_without_end_are_refused(written: Callable[[str], Path]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "aliases that stand for more" in message(lambda: read_yaml(written("\n".join(lines))))
