"""How questions of professional sets are asked, and which replies to them are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.prompts.rows import redacted
from palette.prompts.selection import spelled
from palette.prompts.tables import TableRow

LETTERS = "ABCD"
MMLU = ("question", *LETTERS, "answer")
"""The columns of MMLU's files, which have no header."""
ASIDE = frozenset(
    ("index", "answer", "slice", "task", "rest", "id", "kind", "tier", "domain", "split", "hazard", "image")
)
"""Columns of LegalBench's tasks that are not asked, and labels that may stand beside them."""
CUE = "Step-by-Step analysis:"
AS_ROWS = "read the file as 'rows' with a column map or a template"


def with_options(row: TableRow, path: Path) -> str:
    """MMLU's question, and under it its options by letter."""
    return "\n".join((row.text("question"), *(f"{letter}. {row.text(letter)}" for letter in LETTERS)))


def letter_or_option(row: TableRow) -> tuple[str, ...]:
    """The right letter, which is the reference, the option behind it, and the option alone.

    Raises:
        PromptError: if the answer is no letter.
    """
    letter = row.values.get("answer")
    if letter not in tuple(LETTERS):
        raise row.error(
            f"an answer of mmlu must be one of {', '.join(LETTERS)}",
            got=redacted(letter),
            remedy=AS_ROWS,
        )
    return letter, f"{letter}. {row.text(letter)}", row.text(letter)


def laboratory_question(row: TableRow, path: Path) -> str:
    """LabSafety's question with its options, without the words that introduce both.

    Raises:
        PromptError: if it is none: many sets have the same three columns.
    """
    opening, mark, asked = row.text("input").strip().partition("Question:")
    question = asked.strip().removesuffix(CUE).strip()
    if opening or not mark or not question:
        raise row.error("an input of labsafety must begin with 'Question:'", got="another", remedy=AS_ROWS)
    return question


def parts_of_the_task(row: TableRow, path: Path) -> str:
    """What a task of LegalBench is about: its one text, or each under its column's name.

    Raises:
        PromptError: if there is none.
    """
    asked = {name: value for name, value in row.values.items() if name not in ASIDE}
    parts = {name: value for name, value in asked.items() if isinstance(value, str) and value.strip()}
    if not parts:
        raise row.error("a task of legalbench must have a text", got="none", remedy=AS_ROWS)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return "\n".join(f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in parts.items())


def stated_answer(row: TableRow) -> tuple[str, ...]:
    """The answer as it stands."""
    return (row.text("answer"),)


def yes_no_or_maybe(row: TableRow) -> tuple[str, ...]:
    """PubMedQA's answer.

    Raises:
        PromptError: if it is another: many tables have the same columns.
    """
    answer = row.text("answer")
    if answer not in ("yes", "no", "maybe"):
        raise row.error(
            "an answer of pubmedqa must be yes, no or maybe", got=redacted(answer), remedy=AS_ROWS
        )
    return (answer,)


def scaled_values(row: TableRow) -> tuple[str, ...]:
    """TAT-QA's answer with its scale in words, which is the reference; as it is written; and without.

    Raises:
        PromptError: if it is neither a value nor a list of them.
    """
    given: Any = row.values.get("answer")
    each = given if isinstance(given, list) else [given]
    values = [text for text in map(spelled, each) if text]
    if not values:
        raise row.error("an answer of tatqa must be a value or a list of them", got=type(given).__name__)
    plain, scale = ", ".join(values), spelled(row.values.get("scale"))
    if not scale:
        return (plain,)
    return (f"{plain} {scale}", *((f"{plain}%",) if scale == "percent" else ()), plain)
