from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import PromptError
from palette.prompts.selection import filled, matching, spelled, template_columns, translated
from palette.prompts.tables import TableRow

PATH = Path("a.jsonl")
SECRET = "The wily walrus waters seventeen wisterias"
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)


def rows(*values: Any) -> list[TableRow]:
    return [TableRow({"x": value, "n": n}, f"a.jsonl:{n}") for n, value in enumerate(values, start=1)]


def error(action: Callable[[], object]) -> str:
    with pytest.raises(PromptError) as caught:
        action()
    return str(caught.value)


@given(PLAIN)
def test_a_spelling_is_spelled_as_it_is(value: Any) -> None:
    assert spelled(spelled(value)) == spelled(value)


@given(st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_or_truth_value_is_the_same_from_csv_json_and_yaml(value: Any) -> None:
    assert spelled(str(value)) == spelled(json.loads(json.dumps(value))) == spelled(value)


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_numbers_are_the_same_if_their_values_are(one: int, other: int) -> None:
    assert (spelled(one) == spelled(str(other))) == (one == other)


@given(st.sampled_from(["yes", "No", "ON", "off", "true", "False", "maybe", "Y", "NaN", "1e3", "007"]))
def test_words_that_yaml_reads_as_truth_values_are_compared_as_such(word: str) -> None:
    read = yaml.safe_load(word)
    assert (spelled(word) == word) == (not isinstance(read, bool) or word in ("true", "false"))
    if isinstance(read, bool):
        assert spelled(word) == spelled(read)


def test_spellings_that_are_the_same_and_that_are_not() -> None:
    assert {spelled(value) for value in (1, 1.0, "1", "1.0", "1.00")} == {"1"}
    assert {spelled(value) for value in (0, -0.0, "-0", "0.0")} == {"0"}
    assert {spelled(value) for value in (None, "")} == {""}
    assert {spelled(value) for value in (True, "TRUE", "Yes")} == {"true"}
    assert len({spelled(value) for value in (1, True, "01", "1 ", "+1", "one")}) == 6
    assert [spelled(value) for value in ([1], {"a": 1}, b"a")] == [None] * 3


@given(st.lists(PLAIN, min_size=1), st.sets(PLAIN.map(spelled), min_size=1))
def test_rows_that_match_are_all_of_them_in_order(values: list[Any], wanted: set[str]) -> None:
    expected = [row for row in rows(*values) if spelled(row.values["x"]) in wanted]
    if expected:
        assert matching(rows(*values), {"x": wanted}, PATH) == expected
    else:
        assert error(lambda: matching(rows(*values), {"x": wanted}, PATH)).startswith(
            "where must leave a row"
        )


@given(st.lists(PLAIN, min_size=1))
def test_a_map_translates_one_column_and_leaves_the_others(values: list[Any]) -> None:
    words = {str(spelled(value)): f"to {spelled(value)}" for value in values}
    found = translated(rows(*values), {"x": words}, PATH)
    assert [row.values["x"] for row in found] == [f"to {spelled(value)}" for value in values]
    assert [(row.values["n"], row.where) for row in found] == [
        (row.values["n"], row.where) for row in rows(*values)
    ]


def test_no_selection_is_every_row() -> None:
    every = rows("a", [SECRET])
    assert matching(every, {}, PATH) == every
    assert translated(every, {}, PATH) == every


def test_several_columns_must_all_match() -> None:
    assert [
        row.values["n"] for row in matching(rows("a", "b", "a"), {"x": ["a"], "n": ["2", "3"]}, PATH)
    ] == [3]


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (
            lambda: matching(rows("a", SECRET), {"x": ["b"]}, PATH),
            "where must leave a row of the file, got none of 2; check the values of 'x' (a.jsonl)",
        ),
        (
            lambda: matching(rows("a"), {"y": ["b"], SECRET: ["c"]}, PATH),
            "where must name columns of the file, by our name where 'columns' gives one, got a text of 42 "
            "characters, 'y'; it has 'n', 'x' (a.jsonl)",
        ),
        (
            lambda: translated(rows("a"), {"kind": {"a": "b"}}, PATH),
            "map must name columns of the file, by our name where 'columns' gives one, got 'kind'; it has "
            "'n', 'x' (a.jsonl)",
        ),
        (
            lambda: translated(rows("a", "b"), {"x": {"a": "c"}}, PATH),
            "map must have an entry for every value of 'x', got 'b'; add it, or leave such rows out with "
            "'where' (a.jsonl:2)",
        ),
        (
            lambda: translated(rows(SECRET), {"x": {"a": "c"}}, PATH),
            "map must have an entry for every value of 'x', got a text of 42 characters; add it, or leave "
            "such rows out with 'where' (a.jsonl:1)",
        ),
        (
            lambda: translated(rows([SECRET]), {"x": {"a": "c"}}, PATH),
            "map must have an entry for every value of 'x', got a value of type list; add it, or leave "
            "such rows out with 'where' (a.jsonl:1)",
        ),
        (
            lambda: translated(rows(None), {"x": {"a": "c"}}, PATH),
            "map must have an entry for every value of 'x', got no value; add it, or leave such rows out "
            "with 'where' (a.jsonl:1)",
        ),
    ],
)
def test_a_selection_that_breaks_a_law_is_refused(action: Callable[[], object], sentence: str) -> None:
    assert error(action) == sentence


def test_the_remedies_help() -> None:
    kept = matching(rows("a", "b"), {"x": ["a"]}, PATH)
    assert [row.values["x"] for row in translated(kept, {"x": {"a": "c"}}, PATH)] == ["c"]
    added = translated(rows("a", None), {"x": {"a": "c", "": "d"}}, PATH)
    assert [row.values["x"] for row in added] == ["c", "d"]


def test_a_template_s_columns_are_its_words_in_braces() -> None:
    assert template_columns("{a}, {b c} and {{none}}") == ("a", "b c")
    assert filled(TableRow({"a": "one", "b c": 2}, ""), "{a}, {b c} and {{none}}") == "one, 2 and {none}"


@pytest.mark.parametrize("template", ["", "why", "{}", "{a!r}", "{a:>9}", "{{a}}"])
def test_a_template_that_names_no_column_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=re.escape("a template must name columns in braces")):
        template_columns(template)


@pytest.mark.parametrize("template", ["{a", "a}"])
def test_a_template_with_half_a_brace_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="a template must name columns in braces"):
        template_columns(template)


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L"]), min_size=1), st.text("abc", min_size=1), min_size=1
    )
)
def test_a_template_puts_each_text_in_its_place(values: dict[str, str]) -> None:
    template = "|".join(f"{{{name}}}" for name in values)
    assert filled(TableRow(values, ""), template) == "|".join(values.values())


@pytest.mark.parametrize("value", [None, "", " ", True, [SECRET]])
def test_a_template_wants_a_text_of_every_column(value: Any) -> None:
    found = error(lambda: filled(TableRow({"a": value}, "a.csv:1"), "{a}"))
    assert found.startswith("a must be a text that is not empty, got ")
    assert SECRET not in found
