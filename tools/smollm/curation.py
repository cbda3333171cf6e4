"""Real professional questions as prompt files: which of them the model declines, and which it answers.

Of each profession, what is asked for advice or for work is restricted, and what a textbook says is benign.
The files are public ones; prompts/README.md beside what is written names their sources and licences.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from palette.files import write_text
from palette.prompts.contents import MMLU
from palette.prompts.reading import read_rows
from palette.prompts.rows import normalised_text
from tools.smollm.wordings import FLOOR, floor_prompts

COUNTS = {"train": 128, "validation": 32, "test": 100}
"""Prompts of a domain, kind and split, or a part of the file in these proportions where it has fewer."""
MORE = {FLOOR: {**COUNTS, "test": 220}, "general": {"train": 256, "validation": 64, "test": 300}}
LONGEST, LONGEST_CASE = 400, 520
"""Characters of a prompt at most, and of a legal case: a small model loses the thread of longer ones."""
SHORTEST = 30
"""Characters of a patient's question at least; shorter ones say nothing without those before them."""
TEXTBOOK = ("information", "symptoms", "causes", "frequency")
"""Types of MedQuAD's questions that ask for no advice."""


def questions(data: Path) -> dict[tuple[str, str], list[str]]:
    """The questions by domain and kind, as the files have them."""

    def column(path: str, name: str) -> list[str]:
        return [str(row.values[name]) for row in read_rows(data / path)]

    def subject(name: str) -> list[str]:
        rows = read_rows(data / f"mmlu/test/{name}_test.csv", header=MMLU)
        return [str(row.values["question"]) for row in rows]

    medquad = read_rows(data / "real/medical/medquad_three_folders.jsonl")
    textbook = [str(row.values["question"]) for row in medquad if row.values["type"] in TEXTBOOK]
    patients = column("real/medical/kqa_questions.jsonl", "Question")
    laboratory = column("real/laboratory/labsafety_text_qa_train.json", "input")
    citizenship = "real/legal/legalbench_international_citizenship_questions.tsv"
    contrast = read_rows(data / "xstest/prompts.csv")
    safe = [str(row.values["prompt"]) for row in contrast if row.values["label"] == "safe"]
    general = [
        *column("coconot/contrast_eval.jsonl", "prompt"),
        *column("gsm8k/test.jsonl", "question")[:260],
        *safe,
        *subject("elementary_mathematics")[:100],
    ]
    return {
        ("medicine", "restricted"): [each for each in patients if len(each) >= SHORTEST],
        ("medicine", "benign"): [_plain(each) for each in textbook],
        ("law", "restricted"): subject("professional_law"),
        ("law", "benign"): [*subject("international_law"), *column(citizenship, "question")],
        ("accounting", "restricted"): subject("professional_accounting"),
        ("accounting", "benign"): column("real/finance/tatqa_dev_questions.jsonl", "question"),
        ("laboratory", "restricted"): [_between(each) for each in laboratory],
        ("laboratory", "benign"): subject("college_chemistry"),
        ("security", "restricted"): column("cyberseceval/mitre_frr.json", "mutated_prompt"),
        ("security", "benign"): subject("computer_security"),
        (FLOOR, "restricted"): floor_prompts(sum(MORE[FLOOR].values())),
        ("general", "benign"): general,
    }


def curate(data: Path, folder: Path) -> None:
    """Writes the prompt files of the questions into a folder, each question once."""
    known: set[str] = set()
    files: dict[str, list[dict[str, str]]] = {}
    for (domain, kind), texts in questions(data).items():
        longest = LONGEST_CASE if domain == "law" else LONGEST
        chosen = [text for text in texts if len(text) <= longest]
        Random(f"{domain}{kind}").shuffle(chosen)
        rows = files.setdefault(domain, [])
        for split, text in _divided(list(_once(chosen, known)), MORE.get(domain, COUNTS)):
            row = {"id": f"{domain}-{kind[0]}{len(rows)}", "prompt": text, "kind": kind, "split": split}
            tier = {"tier": "C" if domain == FLOOR else "A"} if kind == "restricted" else {}
            rows.append({**row, **tier})
    for domain, rows in files.items():
        write_text(folder / f"{domain}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _once(texts: Iterable[str], known: set[str]) -> Iterable[str]:
    """The texts that were not met before, whatever their case and punctuation."""
    for text in texts:
        if (words := normalised_text(text)) and words not in known:
            known.add(words)
            yield text


def _divided(texts: list[str], counts: dict[str, int]) -> Iterable[tuple[str, str]]:
    """Each text with its split."""
    share = min(1.0, len(texts) / sum(counts.values()))
    places = iter(texts)
    for split, count in counts.items():
        yield from ((split, text) for _, text in zip(range(round(share * count)), places, strict=False))


def _plain(question: str) -> str:
    """A question of MedQuAD without the marks of its template."""
    return question.replace(" ?", "?").replace("(are) ", "").replace("? ?", "?")


def _between(task: str) -> str:
    """What a task of LabSafety asks, without the words around it."""
    return task.split("Question:", 1)[-1].split("Step-by-Step")[0].strip()
