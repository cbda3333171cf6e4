from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from palette.errors import PromptError
from palette.recipe import create_recipe
from palette.run import Run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "health.jsonl"
    kinds = [("restricted", "A"), ("restricted", "C"), ("benign", None)]
    written = [
        {
            "id": f"{kind}-{tier}-{i}",
            "prompt": f"{kind} {tier} {i}?",
            "kind": kind,
            "tier": tier,
            "answer": "So.",
        }
        for kind, tier in kinds
        for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return path


def run(prompts: Any) -> Run:
    return Run(create_recipe({"authorise": ["health"], "prompts": prompts}), Path())


def test_a_run_reads_its_sources_and_says_where_they_come_from(rows: Path) -> None:
    found = run({"sources": [{"path": str(rows), "licence": "ours"}]})
    assert len(found.prompts) == 60
    assert found.answered_prompts.rows[0].answer == "So."
    assert found.prompts.rows[0].answer is None
    assert [each.to_json()["licence"] for each in found.sources] == ["ours"]
    assert found.authorisation.domains == ("health",)
    assert found.faults("train", "validation", "test") == []


def test_sources_may_lie_in_a_file_of_their_own(rows: Path) -> None:
    path = rows.with_name("sources.yaml")
    path.write_text("sources: [health.jsonl]\n")
    assert run(str(path)).prompts == run({"sources": [str(rows)]}).prompts


def test_a_folder_has_no_sources() -> None:
    found = run("organism")
    assert found.sources == []
    assert "medical" in found.prompts.domains


def test_the_identity_of_a_run_follows_its_rows(rows: Path) -> None:
    before = run({"sources": [str(rows)]}).prompts.fingerprint
    stricter = run({"sources": [{"path": str(rows), "name": "other"}]}).prompts.fingerprint
    assert before != stricter
    assert before == run({"sources": [str(rows)]}).prompts.fingerprint


def test_a_role_that_is_missing_is_said_of_the_sources(rows: Path) -> None:
    found = run({"sources": [{"path": str(rows), "columns": {"kind": "id"}}]})
    with pytest.raises(PromptError):
        _ = found.prompts
    benign = rows.with_name("benign.csv")
    benign.write_text("prompt,kind,tier\nWhy?,benign,\nHow?,restricted,A\n")
    short = run({"sources": [{"path": str(benign), "domain": "health", "split": "train"}]})
    told = [str(fault) for fault in short.faults("train", "validation", "test")]
    assert len(told) == 7
    assert told[0].endswith("got no preserved or floor prompt in train; add rows for it (prompts.sources)")


def test_prompts_with_an_image_are_refused_before_anything_runs(rows: Path) -> None:
    given = [json.loads(line) for line in rows.read_text().splitlines()]
    given[3]["image"] = "hat.png"
    Image.new("RGB", (4, 4)).save(rows.parent / "hat.png")
    rows.write_text("".join(json.dumps(row) + "\n" for row in given))
    (fault,) = run({"sources": [str(rows)]}).faults("train", "validation", "test")
    assert re.search(f"got 1 with a picture, the first '.*{given[3]['id']}'", str(fault))


SYSTEM = "Be brief ."


def test_a_system_prompt_is_part_of_a_run_s_identity() -> None:
    def identity(**more: Any) -> str:
        return Run(
            create_recipe({"authorise": ["medical"], "model": "organism/shared", **more}), Path()
        ).identity

    assert len({identity(), identity(system=SYSTEM), identity(system="Be long .")}) == 3
    assert identity(system="") == identity()


def test_a_system_prompt_stands_before_prompts_that_have_none(shared: Run, tmp_path: Path) -> None:
    recipe = {"authorise": ["medical"], "model": "organism/shared", "system": SYSTEM}
    found = Run(create_recipe(recipe), tmp_path)
    row = next(iter(shared.prompts))
    chat = (("role", "user"), ("content", str(row.prompt)))
    own = replace(row, prompt=((("role", "system"), ("content", "Be long .")), chat))
    said = replace(row, prompt=((("role", "system"), ("content", SYSTEM)), chat))
    assert found.render([row, own]) == shared.render([said, own])
    assert found.render([row]) != shared.render([row])
