"""The examples that the documentation shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.authorisation import Role
from palette.errors import JudgeError
from palette.evaluation.correctness import marks
from palette.evaluation.subjects import Requests
from palette.fingerprints import fingerprint_file
from palette.judging.judge import Label, judge_named
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from palette.prompts import Prompt, load_source
from palette.search.objectives import TrialFigures
from palette.search.settings import SearchSettings, objective_named

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


EXAMPLES = KQA.parent


def test_the_example_of_an_objective_is_minimised_or_maximised_as_it_says() -> None:
    name = f"{EXAMPLES / 'floor_objective.py'}:floor_score"
    assert SearchSettings(objectives=(name,)).own_files() == {name: fingerprint_file(Path(name[:-12]))}
    score, direction = objective_named(name)
    assert direction == "maximize"
    assert score(TrialFigures({}, 0.0, {"floor_refusal_score": 3.5})) == 3.5


def test_the_example_of_a_merge_method_gives_every_adapter_as_much_to_say() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in ((2, 6), (5, 2), (2, 6), (5, 2))]
    small, large = (LoraModule(*drawn[i : i + 2], scale) for i, scale in ((0, 0.01), (2, 7.0)))
    adapters = [Adapter({"q": each}, BackboneIdentity("tiny", "f"), {}) for each in (small, large)]
    name = f"{EXAMPLES / 'equal_say.py'}:equal_say"
    merged, _ = combine([MergeInput(each) for each in adapters], name)
    mean = (small.norm() + large.norm()) / 2
    expected = sum(each.delta() / each.norm() * mean for each in (small, large))
    assert torch.allclose(merged.modules["q"].delta(), expected, atol=1e-5)


TICKETS = (
    "subject,body,ticket,closed_with,domain\nHat,Where is it?,T1,On the shelf.,desk\nCat,Whose?,T2,,desk\n"
)


def test_the_example_of_a_schema_reads_tickets(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text(TICKETS, encoding="utf-8")
    source = load_source(
        tmp_path / "tickets.csv", f"{EXAMPLES / 'tickets_schema.py'}:TICKETS", licence="ours"
    )
    assert {row.id: (row.prompt, row.answer, row.kind) for row in source.prompts} == {
        "tickets/tickets:T1": ("Hat\n\nWhere is it?", "On the shelf.", "benign"),
        "tickets/tickets:T2": ("Cat\n\nWhose?", None, "benign"),
    }


def test_every_example_is_named_where_extensions_are_explained() -> None:
    page = (EXAMPLES.parent / "extending.md").read_text(encoding="utf-8")
    assert all(f"examples/{path.name}" in page for path in EXAMPLES.glob("*.py"))
