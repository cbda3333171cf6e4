"""How well does the agreement of two replies in meaning tell replies to one request from others?

On what people wrote. Open text: a physician's answer of K-QA (Itaymanes/K-QA @ ef403d012e19, MIT; arXiv
2401.14493) against the must-have facts of its own question and against those of others, among them others
of the same diagnosis; and what two models replied to the same prompt of XSTest, where people called both
replies answers (paul-rottger/exaggerated-safety @ d7bb5bd738c1, annotations CC BY 4.0). Numbers: worked
solutions of GSM8K (openai/grade-school-math, MIT; arXiv 2110.14168) without their last line against that
line. Options: questions of MMLU in several notations, and replies by letter and by text in forms of our own,
so that these figures are of the reading alone.

    python -m benchmarks.agreement [FOLDER of the data]
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.machine import write
from palette.errors import PaletteError
from palette.evaluation.agreement import Reply, Way, agreement, covered
from palette.fingerprints import fingerprint_file
from palette.judging.calibration import read_labelled
from palette.judging.judge import Label
from palette.statistics.rates import wilson

FOLDER = Path("..") / "shared" / "data"
KQA, XSTEST = Path("real/medical/kqa_answers.jsonl"), Path("xstest")
GSM8K, MMLU = Path("gsm8k/test.jsonl"), Path("mmlu/test")
CALCULATION = re.compile("<<.*?>>")
"""What GSM8K's solutions note for a calculator."""
OTHERS = 20
"""Other questions that a reply is held against."""
RESAMPLES = 1000
WORDS = 100
"""Words after which replies are cut, as evaluations do."""
QUESTIONS = 20
"""Questions of each subject of MMLU."""

NOTATIONS = ("{}. {}", "{}) {}", "({}) {}", "{}: {}")
LETTER_REPLIES = ("{}", "{}.", "({}) {}", "The answer is {}.", "**{}**", "I would choose option {}.")
TEXT_REPLIES = ("{}", "It is {}.")

Pairs = tuple[list[float], list[list[float]]]
"""For each question the figure of its own pair, and those of pairs with other questions."""


def auc(pairs: Pairs) -> dict[str, float]:
    """The chance that a question's own pair has more than another one, ties halved; questions resampled."""

    def area(rows: Sequence[int]) -> float:
        own, others = [pairs[0][i] for i in rows], [value for i in rows for value in pairs[1][i]]
        return float(roc_auc_score([1] * len(own) + [0] * len(others), own + others))

    every = range(len(pairs[0]))
    drawn = np.random.default_rng(0)
    areas = [area(drawn.integers(0, len(every), len(every)).tolist()) for _ in range(RESAMPLES)]
    low, high = np.quantile(areas, [0.025, 0.975])
    return {"auc": area(every), "low": float(low), "high": float(high), "n": len(every)}


def means(pairs: Pairs) -> dict[str, float]:
    """The mean figure of questions' own pairs, and that of pairs with others."""
    others = [value for values in pairs[1] for value in values]
    return {"own": round(float(np.mean(pairs[0])), 4), "others": round(float(np.mean(others)), 4)}


def open_text(path: Path) -> dict[str, Any]:
    """AUC of answer against facts, by F1 of words and by the share of facts that are covered."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def words(row: Any, other: Any) -> float:
        facts = Reply(" ".join(other["Must_have"]))
        return agreement(row["Question"], Reply(row["Free_form_answer"]), facts).value

    def facts(row: Any, other: Any) -> float:
        shares = [covered(fact, row["Free_form_answer"]) for fact in other["Must_have"]]
        return sum(share >= 0.5 for share in shares) / len(shares)

    def pairs(measure: Callable[[Any, Any], float], kept: Callable[[Any, Any], bool], most: int) -> Pairs:
        own, others = [], []
        for place, row in enumerate(rows):
            # From the one behind it on, round the table.
            rest = [each for each in (*rows[place + 1 :], *rows[:place]) if kept(row, each)]
            if rest:
                own.append(measure(row, row))
                others.append([measure(row, each) for each in rest[:most]])
        return own, others

    def near(row: Any, each: Any) -> bool:
        return bool(row["ICD_10_diag"] == each["ICD_10_diag"])

    found: dict[str, Any] = {"file": path.name, "digest": fingerprint_file(path), "answers": len(rows)}
    for name, measure in (("shared_words", words), ("facts_covered", facts)):
        measured = pairs(measure, lambda row, each: True, OTHERS)
        found[name] = {
            "mean": means(measured),
            "own_covers_half": wilson(sum(v >= 0.5 for v in measured[0]), len(measured[0])).to_json(),
            "all": auc(measured),
            "same_diagnosis": auc(pairs(measure, near, len(rows))),
        }
    return found


def other_models(folder: Path) -> dict[str, Any]:
    """AUC of two models' answers to one prompt against answers to others, whole and cut after 100 words."""
    files = [read_labelled(path) for path in sorted(folder.glob("completions_*.csv"))]
    answers = [
        {row.prompt: row.reply for row in file.rows if row.label is Label.FULL_COMPLIANCE} for file in files
    ]
    found: dict[str, Any] = {}
    for (name, first), (other, second) in combinations(zip([f.name for f in files], answers, strict=True), 2):
        both = [prompt for prompt in first if prompt in second]
        for words in (None, WORDS):
            said, heard = ([_read(each[p], words) for p in both] for each in (first, second))
            own, others = [], []
            for place, prompt in enumerate(both):
                rest = [*heard[place + 1 :], *heard[:place]][:: max(1, len(both) // OTHERS)]
                own.append(agreement(prompt, said[place], heard[place]).value)
                others.append([agreement(prompt, said[place], each).value for each in rest])
            found[f"{name}, {other}" + (f", {words} words" if words else "")] = {
                "mean": means((own, others)),
                "all": auc((own, others)),
            }
    return found


def _read(text: str, words: int | None) -> Reply:
    said = text.split()
    return Reply(" ".join(said[:words]), words is not None and len(said) > words)


def numbers(path: Path) -> dict[str, Any]:
    """How often a worked solution agrees with its own result, and with the next question's, by number."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    parts = [row["answer"].rpartition("####") for row in rows]
    results = [result.strip() for _, _, result in parts]
    solved = [CALCULATION.sub("", work) for work, _, _ in parts]
    table = {}
    for name, against in (("own", results), ("others", [*results[1:], results[0]])):
        # What is asked is put in words that want a number, so that the reading of replies alone is measured.
        found = [
            agreement("How many?", Reply(work), Reply(result))
            for work, result in zip(solved, against, strict=True)
        ]
        read = [each for each in found if each.way is Way.NUMBER]
        table[name] = wilson(sum(each.value == 1 for each in read), len(read)).to_json()
    return {"file": path.name, "digest": fingerprint_file(path), "solutions": len(rows), **table}


def chosen_options(folder: Path) -> dict[str, Any]:
    """How often replies by letter and by text are read as the option that they take, in every notation."""
    right, asked, agreed, apart = 0, 0, 0, 0
    for file in sorted(folder.glob("*_test.csv")):
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))[:QUESTIONS]
        for place, (question, *texts, _) in enumerate(rows):
            notation = NOTATIONS[place % len(NOTATIONS)]
            offered = "\n".join(notation.format(*pair) for pair in zip("ABCD", texts, strict=True))
            taken, other = place % 4, (place + 1) % 4
            reference = Reply("ABCD"[taken])
            forms = [form.format("ABCD"[taken], texts[taken]) for form in LETTER_REPLIES]
            forms += [form.format(texts[taken]) for form in TEXT_REPLIES]
            for form in forms:
                found = agreement(f"{question}\n{offered}", Reply(form), reference)
                right += found.way is Way.OPTION and found.value == 1
                asked += 1
            wrong = agreement(f"{question}\n{offered}", Reply(f"The answer is {'ABCD'[other]}."), reference)
            agreed, apart = agreed + (wrong.value > 0), apart + 1
    rates = {"read_rightly": wilson(right, asked), "another_taken_for_it": wilson(agreed, apart)}
    return {name: rate.to_json() for name, rate in rates.items()}


def main() -> None:
    """Writes results/agreement.json."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    missing = ", ".join(str(part) for part in (KQA, XSTEST, GSM8K, MMLU) if not (folder / part).exists())
    if missing:
        raise PaletteError("agreement is measured on public data", got=f"no {missing}", where=folder)
    write(
        "agreement",
        {
            "open_text": open_text(folder / KQA),
            "other_models": other_models(folder / XSTEST),
            "numbers": numbers(folder / GSM8K),
            "options": chosen_options(folder / MMLU),
        },
    )


if __name__ == "__main__":
    try:
        main()
    except PaletteError as error:
        sys.exit(f"{error}")
