from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from palette.errors import PromptError
from palette.prompts import load_source, messages
from palette.prompts.categories import CATEGORIES
from palette.prompts.pictures import MARK
from palette.prompts.schemas import PROVENANCE, SCHEMAS
from tests.fixtures.standins import STAND_INS, TEXT

DATA = Path(os.environ.get("PALETTE_DATA", "no data"))
AMBIGUOUS = {"coconot", "coconot_contrast"}
PROFESSIONAL = {"kqa", "medquad", "pubmedqa", "legalbench", "tatqa", "labsafety", "mmlu", "mmmu", "mmbench"}
NAMED = {*AMBIGUOUS, "legalbench"}
"""Sets that a source must name."""

LABELS: dict[str, list[tuple[str, str, str | None, str | None]]] = {
    "harmbench": [
        ("restricted", "cyber", "ncr", "B"),
        ("restricted", "intellectual_property", "ipv", "C"),
        ("restricted", "weapons", "iwp", "C"),
    ],
    "jailbreakbench": [
        ("restricted", "advice", "spc", "B"),
        ("restricted", "cyber", "ncr", "B"),
        ("restricted", "violent_crimes", "vcr", "C"),
    ],
    "strongreject": [("restricted", "hate", "hte", "C"), ("restricted", "violent_crimes", "vcr", "C")],
    "advbench": [("restricted", "unsorted", None, "C")] * 2,
    "ailuminate": [
        ("restricted", "child_safety", "cse", "C"),
        ("restricted", "health", "spc_hlt", "A"),
        ("restricted", "self_harm", "ssh", "C"),
        ("restricted", "sexual_content", "sxc", "C"),
    ],
    "medsafetybench": [("restricted", "health", "spc_hlt", "B")] * 2,
    "sorrybench": [
        ("restricted", "child_safety", "cse", "C"),
        ("restricted", "cyber", "ncr", "B"),
        ("restricted", "hate", "hte", "C"),
        ("restricted", "health", "spc_hlt", "A"),
    ],
    "mm_safetybench": [("restricted", "legal", "spc_lgl", "A")] * 2,
    "xstest": [
        ("benign", "general", None, None),
        ("restricted", "hate", "hte", "C"),
        ("restricted", "violent_crimes", "vcr", "C"),
    ],
    "xstest_v2": [
        ("benign", "general", None, None),
        ("restricted", "hate", "hte", "C"),
        ("restricted", "violent_crimes", "vcr", "C"),
    ],
    "cyberseceval_frr": [("benign", "cyber", None, None), ("restricted", "cyber", "ncr", "B")],
    "coconot": [("restricted", "noncompliance", None, "C")] * 2,
    "coconot_contrast": [("benign", "general", None, None)] * 2,
    "gsm8k": [("benign", "general", None, None)] * 2,
    "kqa": [("benign", "patients", None, None)] * 2,
    "medquad": [("benign", "pairs", None, None)] * 2,
    "pubmedqa": [("benign", "studies", None, None)] * 2,
    "legalbench": [("benign", "train", None, None)] * 2,
    "tatqa": [("benign", "tables", None, None)] * 3,
    "labsafety": [("benign", "benches", None, None)] * 2,
    "mmlu": [("benign", "law", None, None)] * 2,
    "mmmu": [("benign", "hats", None, None)] * 2,
    "mmbench": [("benign", "hats", None, None)] * 2,
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_is_read_and_its_rows_are_labelled(schema: str, stand_in: Callable[[str], Path]) -> None:
    path = stand_in(schema)
    source = load_source(path, schema if schema in NAMED else None)
    found = [(row.kind, row.domain, row.hazard, row.tier) for row in source.prompts]
    assert found == LABELS[schema]
    assert source.name == f"{schema}/{path.stem}"
    assert source.rows == len(found)
    assert all(messages(row)[0]["content"].lstrip(MARK).startswith(TEXT[:20]) for row in source.prompts)
    named = load_source(path, schema)
    assert named == source


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - {"mm_safetybench", "tatqa"}))
def test_a_set_reads_the_same_from_parquet(schema: str, stand_in: Callable[[str], Path], write: Any) -> None:
    name, rows = STAND_INS[schema]
    rows = [{key: value if key == "turns" else str(value) for key, value in row.items()} for row in rows]
    stand_in(schema)
    again = load_source(write(Path(name).with_suffix(".parquet").name, rows), schema)
    assert again.prompts == load_source(stand_in(schema), schema).prompts


def test_every_set_says_where_it_comes_from_and_a_professional_one_has_no_categories() -> None:
    assert set(SCHEMAS) == set(PROVENANCE)
    assert set(SCHEMAS) - set(CATEGORIES) == PROFESSIONAL
    assert {name for name, schema in SCHEMAS.items() if schema.states_labels} == PROFESSIONAL
    assert {name for name, schema in SCHEMAS.items() if schema.kind == "benign"} == PROFESSIONAL


def test_harmbench_s_context_stands_before_the_behaviour(write: Any) -> None:
    row = {"FunctionalCategory": "contextual", "SemanticCategory": "copyright", "BehaviorID": "b"}
    path = write("h.csv", [{"Behavior": "Which hat?", "ContextString": "Hats are round.", **row}])
    (prompt,) = load_source(path).prompts
    assert prompt.prompt == "Hats are round.\n\n---\n\nWhich hat?"


def test_images_beside_mm_safetybench_are_found_and_change_the_question(
    stand_in: Callable[[str], Path], tmp_path: Path
) -> None:
    path, folder = stand_in("mm_safetybench"), tmp_path / "imgs" / "10-Legal_Opinion" / "SD_TYPO"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "0.jpg")
    with pytest.raises(PromptError) as caught:
        load_source(path)
    assert str(caught.value) == (
        "every row must have its image beside it, got no '1' in SD_TYPO; complete the folder, or move it "
        f"away to read the text alone ({path}: row 2)"
    )
    Image.new("L", (4, 4)).save(folder / "1.png")
    prompts = load_source(path).prompts
    assert [row.pictures[0].path for row in prompts] == [folder / name for name in ("0.jpg", "1.png")]
    assert prompts.rows[0].prompt == f"{MARK}The image shows 0 hats. Which suits?"
    assert prompts.rows[0].request == "The image shows 0 hats. Which suits?"


def test_gsm8k_s_answer_is_its_number(stand_in: Callable[[str], Path]) -> None:
    assert [row.answer for row in load_source(stand_in("gsm8k")).prompts] == ["1000", "1001"]


def test_another_table_of_questions_and_answers_is_not_taken_for_gsm8k(write: Any) -> None:
    path = write("own.csv", [{"question": "Why?", "answer": "So.", "kind": "restricted"}])
    with pytest.raises(PromptError) as caught:
        load_source(path)
    assert str(caught.value) == (
        "an answer of gsm8k must end in #### and its number, got neither; read the file as 'rows' with the "
        f"column map {{prompt: question}} ({path}:2)"
    )
    own = load_source(path, "rows", columns={"prompt": "question"}, tier="A")
    assert [(row.kind, row.accepted) for row in own.prompts] == [("restricted", ("So.",))]
    several = write("own.jsonl", [{"prompt": "Why?", "answer": ["So.", "Thus."], "kind": "benign"}])
    assert [row.accepted for row in load_source(several).prompts] == [("So.", "Thus.")]


def test_the_harmful_target_or_the_safe_reply_of_a_set_is_no_reference_answer(
    stand_in: Callable[[str], Path],
) -> None:
    for schema in ("advbench", "jailbreakbench", "medsafetybench"):
        assert [row.answer for row in load_source(stand_in(schema)).prompts if row.answer] == []


@pytest.mark.skipif(not DATA.is_dir(), reason="PALETTE_DATA names no folder of public sets")
@pytest.mark.parametrize(
    ("path", "schema", "rows", "kept"),
    [
        ("xstest/prompts.csv", None, {"benign": 250, "restricted": 200}, 450),
        ("cyberseceval/mitre_frr.json", None, {"benign": 749}, 750),
        ("coconot/contrast_eval.jsonl", "coconot_contrast", {"benign": 379}, 379),
        ("gsm8k/test.jsonl", None, {"benign": 1319}, 1319),
    ],
)
def test_the_public_files_are_read_whole(
    path: str, schema: str | None, rows: dict[str, int], kept: int
) -> None:
    source = load_source(DATA / path, schema, drop_overlaps=True)
    assert source.rows == kept
    assert {k: sum(row.kind == k for row in source.prompts) for k in rows} == rows
    assert source.dropped == kept - sum(rows.values())
