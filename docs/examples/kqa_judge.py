"""An example of a judge of one's own: a reply is right if it covers the must-have facts of K-QA.

K-QA (Itaymanes/K-QA on GitHub, MIT; arXiv 2401.14493) has patients' questions and, for each, the facts that
physicians hold an answer must have. Put your copy of its answers beside this file, or name it in KQA_ANSWERS.
In the recipe have ``evaluate.judge: kqa_judge.py:KQA``, and that copy as a source of prompts with answers,
``{path: kqa_answers.jsonl, schema: kqa, columns: {answer: Free_form_answer}, …}``. Whether a reply refuses is
left to the rules.

A fact is covered if a reply has half of its content words, and a reply is right if it covers half of the
facts. Of the physicians' own 201 answers 199 are right then, and of each other's, by one place, none. Words
are no meanings: a reply that denies a fact covers it too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palette.errors import JudgeError
from palette.evaluation.agreement import covered
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.normalisation import bare
from palette.judging.rules import RuleJudge

ANSWERS = Path(os.environ.get("KQA_ANSWERS", Path(__file__).with_name("kqa_answers.jsonl")))
HALF = 0.5


@dataclass(frozen=True)
class KQA(RuleJudge):
    """The rules, and K-QA's facts; it takes the backbone's refusal prefixes as they do."""

    def __post_init__(self) -> None:
        if not ANSWERS.is_file():
            raise JudgeError(
                "K-QA's answers must be there", got="no file", remedy="name it in KQA_ANSWERS", where=ANSWERS
            )

    @cached_property
    def facts(self) -> dict[str, list[str]]:
        """The must-have facts by question, in one typography."""
        lines = ANSWERS.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {bare(row["Question"]): row["Must_have"] for row in rows}

    @property
    def fingerprint(self) -> str:
        """All that decides a verdict: the rules, this file and the facts."""
        return fingerprint([super().fingerprint, fingerprint_file(Path(__file__)), fingerprint_file(ANSWERS)])

    def correct(self, question: str, reply: str, answers: Sequence[str]) -> bool:
        """Whether a reply covers at least half of its question's facts.

        A question that K-QA does not have is compared with the row's own reference.
        """
        facts = self.facts.get(bare(question), answers)
        return sum(covered(fact, reply) >= HALF for fact in facts) >= HALF * len(facts)
