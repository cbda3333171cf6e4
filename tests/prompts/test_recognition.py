from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palette.errors import PromptError
from palette.prompts import load_source

SECRET = "The wily walrus waters seventeen wisterias"


def error(action: Callable[[], object]) -> str:
    with pytest.raises(PromptError) as caught:
        action()
    return str(caught.value)


def test_columns_that_fit_no_schema_or_two_are_refused(write: Any, stand_in: Callable[[str], Path]) -> None:
    path = write("a.csv", [{"text": "Why?", SECRET: "x"}])
    assert error(lambda: load_source(path)) == (
        "a file's columns must be those of a known schema, or have 'prompt', got 'text', a text of 42 "
        f"characters; name the columns with 'columns', for example {{prompt: question}} ({path})"
    )
    path = stand_in("coconot")
    assert error(lambda: load_source(path)) == (
        "a file's columns must be those of one schema, got columns of coconot and coconot_contrast; name one "
        f"with 'schema' ({path})"
    )


def test_a_set_whose_columns_hold_another_s_is_the_one_that_is_meant(stand_in: Callable[[str], Path]) -> None:
    for schema in ("gsm8k", "medquad", "pubmedqa", "tatqa", "mmlu"):
        assert load_source(stand_in(schema)).name.startswith(f"{schema}/")


def test_a_label_may_be_taken_from_a_column_that_a_named_set_is_known_by(
    stand_in: Callable[[str], Path],
) -> None:
    path, columns = stand_in("kqa"), {"kind": "ICD_10_diag"}
    words = {"kind": {"Hat": "restricted"}}
    source = load_source(path, "kqa", columns=columns, map=words, tier="A")
    assert [(row.kind, row.tier) for row in source.prompts] == [("restricted", "A")] * 2
    assert error(lambda: load_source(path, columns=columns)).startswith(
        "a file's columns must be those of a known schema, or have 'prompt'"
    )
    assert error(lambda: load_source(path, "tatqa")) == (
        "a file of the schema tatqa must have the columns question, got no question; name them with "
        f"'columns', or the schema kqa ({path})"
    )


def test_a_set_with_columns_of_many_tables_must_be_named(stand_in: Callable[[str], Path]) -> None:
    path = stand_in("legalbench")
    assert error(lambda: load_source(path)).startswith(
        "a file's columns must be those of a known schema, or have 'prompt', got 'answer', 'index', 'slice'"
    )
    source = load_source(path, "legalbench")
    assert [row.accepted for row in source.prompts] == [("Yes",)] * 2


def test_a_table_with_a_template_is_one_of_the_user_s_own_unless_its_columns_are_a_set_s(
    stand_in: Callable[[str], Path], write: Any
) -> None:
    path = write("a.csv", [{"clause": "Hats are round.", "kind": "benign"}])
    assert load_source(path, template="Is this right? {clause}").name == "a"
    assert load_source(stand_in("gsm8k"), template="{question}").name == "gsm8k/test"
