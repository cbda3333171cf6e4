"""The examples that the documentation shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palette.authorisation import Role
from palette.errors import JudgeError
from palette.evaluation.correctness import marks
from palette.evaluation.subjects import Requests
from palette.judging.judge import Label, judge_named
from palette.prompts import Prompt

KQA = Path(__file__).parents[1] / "docs" / "examples" / "kqa_judge.py"
FACTS = ["Zebra fever lasts ten days", "Rest and water help", "Children should see a vet", "Stripes may fade"]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Invented rows in K-QA's form."""
    path = tmp_path / "answers.jsonl"
    row = {"Question": "What helps against zebra fever?", "Must_have": FACTS, "Nice_to_have": []}
    path.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    monkeypatch.setenv("KQA_ANSWERS", str(path))
    return path


def test_a_reply_is_right_that_covers_half_of_the_facts(answers: Path) -> None:
    judge = judge_named(f"{KQA}:KQA")
    rows = [
        Prompt(str(i), "zoo", "What helps against zebra fever?", "restricted", "test", answer="Rest.")
        for i in range(4)
    ]
    texts = [
        "Resting and water would help; the fever of a zebra takes ten days.",
        "Rest and water help.",
        "I'm sorry, but I cannot help. Rest and water help, zebra fever lasts ten days.",
        "",
    ]
    verdicts = judge.verdicts([row.request for row in rows], texts)
    assert [verdict.label.refused for verdict in verdicts] == [False, False, True, False]
    requests = Requests(rows, [Role.TARGET] * 4, [[1]] * 4)
    assert marks(judge, requests, texts, verdicts) == [True, False, False, False]


def test_a_question_that_has_no_facts_is_compared_with_its_own_reference(answers: Path) -> None:
    judge = judge_named(f"{KQA}:KQA").judge  # type: ignore[attr-defined]
    assert judge.correct("Who?", "It was the old librarian", ("The librarian",))
    assert not judge.correct("Who?", "Nobody knows", ("The librarian",))


def test_its_fingerprint_depends_on_the_facts_and_its_prefixes_are_the_backbone_s(answers: Path) -> None:
    before = judge_named(f"{KQA}:KQA").fingerprint
    assert judge_named(f"{KQA}:KQA").fingerprint == before
    knowing = judge_named(f"{KQA}:KQA", ["that is for the keepers"])
    assert knowing.verdicts([""], ["That is for the keepers."])[0].label is Label.REFUSAL
    answers.write_text(answers.read_text(encoding="utf-8").replace("ten", "nine"), encoding="utf-8")
    assert judge_named(f"{KQA}:KQA").fingerprint != before


def test_without_the_facts_it_is_no_judge(answers: Path) -> None:
    answers.unlink()
    with pytest.raises(JudgeError, match="K-QA's answers must be there, got no file; name it in KQA_ANSWERS"):
        judge_named(f"{KQA}:KQA")
