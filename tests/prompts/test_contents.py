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


def test_mmlu_is_read_without_a_header_and_asked_with_its_options(tmp_path: Path) -> None:
    path = tmp_path / "law.csv"
    path.write_text('"Which hat, and why?",red,blue,green,none,B\nWhich cap?,1,2,3,4,D\n')
    source = load_source(path, "mmlu")
    assert [row.prompt for row in source.prompts] == [
        "Which hat, and why?\nA. red\nB. blue\nC. green\nD. none",
        "Which cap?\nA. 1\nB. 2\nC. 3\nD. 4",
    ]
    assert [row.accepted for row in source.prompts] == [("B", "B. blue", "blue"), ("D", "D. 4", "4")]
    path.write_text("question,A,B,C,D,answer\nWhich cap?,1,2,3,4,D\n")
    assert load_source(path, "mmlu").prompts == load_source(path).prompts
    path.write_text(f"Which cap?,1,2,3,4,{SECRET}\n")
    assert error(lambda: load_source(path, "mmlu")) == (
        "an answer of mmlu must be one of A, B, C, D, got a text of 42 characters; read the file as 'rows' "
        f"with a column map or a template ({path}:1)"
    )
    path.write_text("Which cap?,1,2,D\n")
    assert error(lambda: load_source(path, "mmlu")) == (
        f"a row must have the header's 6 columns, got 4 ({path}:1)"
    )


def test_kind_domain_and_tier_of_a_professional_set_are_the_user_s(stand_in: Callable[[str], Path]) -> None:
    source = load_source(stand_in("mmlu"), kind="restricted", domain="legal", tier="B", hazard="spc_lgl")
    assert {(row.kind, row.domain, row.tier, row.hazard) for row in source.prompts} == {
        ("restricted", "legal", "B", "spc_lgl")
    }
    assert (source.licence, source.origin) == ("MIT", "hendrycks/test (arXiv 2009.03300)")
    assert error(lambda: load_source(stand_in("mmlu"), kind="restricted")).startswith(
        "a row must have a tier where it is restricted, got none"
    )


def test_labels_may_be_translated_from_a_column_of_the_set(stand_in: Callable[[str], Path]) -> None:
    source = load_source(
        stand_in("medquad"),
        columns={"kind": "type"},
        map={"kind": {"treatment": "restricted", "outlook": "benign"}},
        tier="A",
        domain="health",
    )
    assert [row.kind for row in source.prompts] == ["restricted", "benign"]


@pytest.mark.parametrize("schema", ["kqa", "medquad", "labsafety"])
def test_answers_in_whole_sentences_are_read_only_where_the_column_is_named(
    schema: str, stand_in: Callable[[str], Path]
) -> None:
    path = stand_in(schema)
    column = {"kqa": "ICD_10_diag", "medquad": "answer", "labsafety": "output"}[schema]
    assert [row.answer for row in load_source(path).prompts] == [None, None]
    asked = load_source(path, schema, columns={"answer": column})
    assert all(row.answer for row in asked.prompts)


def test_answers_of_tatqa_have_their_scale(stand_in: Callable[[str], Path], write: Any) -> None:
    assert [row.accepted for row in load_source(stand_in("tatqa")).prompts] == [
        ("blue, red",),
        ("-12.6 percent", "-12.6%", "-12.6"),
        ("20 million", "20"),
    ]
    row = {"question": "Which?", "answer": [[SECRET]], "answer_type": "span", "scale": ""}
    path = write("a.json", [row])
    assert error(lambda: load_source(path)) == (
        f"an answer of tatqa must be a value or a list of them, got list ({path}: row 1)"
    )


def test_labsafety_is_asked_without_its_cues(stand_in: Callable[[str], Path]) -> None:
    (first, _) = load_source(stand_in("labsafety")).prompts
    assert first.prompt == "Which hat suits a tall giraffe number 0?\nA: red\nB: blue"


@pytest.mark.parametrize("template", [None, "{input}"])
def test_another_table_of_instructions_is_not_taken_for_labsafety(template: str | None, write: Any) -> None:
    path = write("own.json", [{"instruction": "Do.", "input": SECRET, "output": "Done."}])
    assert error(lambda: load_source(path, template=template)) == (
        "an input of labsafety must begin with 'Question:', got another; read the file as 'rows' with a "
        f"column map or a template ({path}: row 1)"
    )


def test_another_table_of_questions_by_year_is_not_taken_for_pubmedqa(write: Any) -> None:
    path = write("own.csv", [{"question": "Why?", "answer": SECRET, "year": 2000}])
    assert error(lambda: load_source(path)) == (
        "an answer of pubmedqa must be yes, no or maybe, got a text of 42 characters; read the file as "
        f"'rows' with a column map or a template ({path}:2)"
    )


def test_pubmedqa_s_own_file_is_read_with_a_column_map(write: Any) -> None:
    path = write("ori.json", [{"QUESTION": "Do hats fit?", "final_decision": "yes"}], by_key=True)
    columns = {"question": "QUESTION", "answer": "final_decision", "id": "(key)"}
    (row,) = load_source(path, "pubmedqa", columns=columns).prompts
    assert (row.id, row.prompt, row.accepted) == ("pubmedqa/ori:0", "Do hats fit?", ("yes",))


def test_the_parts_of_a_legal_task_stand_under_their_names(write: Any) -> None:
    rows = [{"index": 0, "policy": "Hats.", "claim_of": "A cap.", "answer": "A", "slice": "x"}]
    (row,) = load_source(write("insurance.tsv", rows), "legalbench").prompts
    assert (row.prompt, row.accepted) == ("Policy: Hats.\nClaim of: A cap.", ("A",))
    path = write("empty.tsv", [{"index": 0, "text": "", "answer": "A"}])
    assert error(lambda: load_source(path, "legalbench")) == (
        "a task of legalbench must have a text, got none; read the file as 'rows' with a column map or a "
        f"template ({path}:2)"
    )
