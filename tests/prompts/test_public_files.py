"""The real public files, where PALETTE_DATA says that they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from palette.prompts import PromptSources, load_source, read_sources

DATA = Path(os.environ.get("PALETTE_DATA", "no data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="PALETTE_DATA names no folder of public files")
LEGAL = {"domain": "legal", "schema": "legalbench"}
CLAUSES = {"path": "real/legal/legalbench_contract_clauses.tsv", "name": "clauses", **LEGAL}
TASKS = "contract_qa corporate_lobbying hearsay insurance_policy_interpretation "
TASKS += "international_citizenship_questions legal_reasoning_causality personal_jurisdiction"
REAL: list[tuple[dict[str, Any], int, int]] = [
    ({"path": "real/medical/kqa_answers.jsonl"}, 201, 201),
    ({"path": "real/medical/kqa_questions.jsonl"}, 1212, 1164),
    ({"path": "real/medical/pubmedqa_questions.jsonl"}, 1000, 1000),
    (
        {
            "path": "real/medical/medquad_three_folders.jsonl",
            "domain": "health",
            "columns": {"kind": "type"},
            "where": {"kind": ["treatment", "outlook"]},
            "map": {"kind": {"treatment": "restricted", "outlook": "benign"}},
            "tier": "A",
            "longest": 400,
        },
        2550,
        699,
    ),
    ({"path": "real/finance/tatqa_dev_questions.jsonl", "domain": "finance"}, 1668, 1646),
    ({"path": "real/laboratory/labsafety_text_qa_train.json", "domain": "laboratory"}, 316, 316),
    ({**CLAUSES, "where": {"answer": [True, False]}, "template": "{task}: {text}"}, 374, 112),
    (
        {
            **CLAUSES,
            "columns": {"answer": "text", "text": "answer"},
            "where": {"answer": ["Yes", "No"]},
            "template": "{task}: {text}",
        },
        374,
        228,
    ),
    *(
        ({"path": f"real/legal/legalbench_{task}.tsv", **LEGAL}, rows, rows)
        for task, rows in zip(TASKS.split(), (8, 10, 5, 5, 4, 4, 4), strict=True)
    ),
    ({"path": "mmlu/test/professional_law_test.csv", "schema": "mmlu", "longest": 800}, 1534, 248),
    ({"path": "mmlu/test/clinical_knowledge_test.csv", "schema": "mmlu", "limit": 100}, 265, 100),
    ({"path": "cyberseceval/mitre_frr.json"}, 750, 749),
    ({"path": "xstest/prompts.csv", "where": {"label": "safe"}}, 450, 250),
    ({"path": "coconot/contrast_eval.jsonl", "schema": "coconot_contrast"}, 379, 379),
]


@pytest.mark.parametrize(("keys", "rows", "kept"), REAL, ids=lambda value: str(value)[:40])
def test_real_professional_sets_are_read_as_they_are(keys: dict[str, Any], rows: int, kept: int) -> None:
    source = load_source(**{**keys, "path": DATA / keys["path"]}, drop_overlaps=True)
    assert (source.rows, len(source.prompts)) == (rows, kept)
    assert rows == kept + source.dropped + sum(count for _, count in source.left_out)
    assert {row.split for row in source.prompts} <= {"train", "validation", "test"}
    assert all(row.prompt for row in source.prompts)


def test_all_real_sets_are_one_list_of_sources() -> None:
    given = [
        {**keys, "path": str(DATA / keys["path"]), "name": f"n{i}"} for i, (keys, _, _) in enumerate(REAL)
    ]
    prompts, read = read_sources(PromptSources.model_validate({"sources": given, "drop_overlaps": True}))
    assert len(read) == len(REAL)
    assert {"legal", "finance", "laboratory", "health", "cyber", "general"} < set(prompts.domains)
