"""Which rows of a file are read, and which of our words stand for theirs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

from palette.errors import PaletteError, PromptError, noted, together
from palette.prompts.reading import require_columns
from palette.prompts.rows import redacted
from palette.prompts.tables import TableRow

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
"""How a text is written that is compared as a number; with a leading zero it is a code."""
NAMES_COLUMNS = "must name columns of the file, by our name where 'columns' gives one"
TRUTHS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
"""What YAML reads as a truth value, and its spelling here."""


def spelled(value: Any) -> str | None:
    """A plain value as one text that is the same however a file or a recipe writes it; None for no plain one.

    A recipe's ``yes`` is a truth value to YAML and a word to a table, and a table's ``1`` is a text to
    csv and a number to JSON.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        return None
    text = str(value)
    if NUMBER.fullmatch(text):
        whole, point, rest = text.partition(".")
        text = f"{whole}.{rest}".rstrip("0").rstrip(".") if point else whole
        return "0" if text == "-0" else text
    return TRUTHS.get(text.casefold(), text)


def matching(
    rows: Sequence[TableRow], where: Mapping[str, Collection[str]], path: Path
) -> Sequence[TableRow]:
    """The rows in which each column of ``where`` has one of its spelled values.

    Raises:
        PromptError: if there is no such column, or no such row.
    """
    require_columns(rows, where, f"where {NAMES_COLUMNS}", path)
    kept = [
        row
        for row in rows
        if all(spelled(row.values.get(column)) in values for column, values in where.items())
    ]
    if not kept:
        raise PromptError(
            "where must leave a row of the file",
            got=f"none of {len(rows)}",
            remedy=f"check the values of {', '.join(redacted(name) for name in where)}",
            where=path,
        )
    return kept


def translated(
    rows: Sequence[TableRow], words: Mapping[str, Mapping[str, str]], path: Path
) -> Sequence[TableRow]:
    """The rows with each value of a column of ``words`` replaced by its entry there.

    Raises:
        PromptError: if there is no such column, or a value has no entry.
    """
    require_columns(rows, words, f"map {NAMES_COLUMNS}", path)
    if not words:
        return rows
    found, broken = list[TableRow](), list[PaletteError]()
    for row in rows:
        with noted(broken):
            entries = {name: _entry(row, name, words[name]) for name in words}
            found.append(replace(row, values={**row.values, **entries}))
    if broken:
        raise together(broken)
    return found


def _entry(row: TableRow, column: str, entries: Mapping[str, str]) -> str:
    value = row.values.get(column)
    key = spelled(value)
    if key is None or key not in entries:
        raise row.error(
            f"map must have an entry for every value of {redacted(column)}",
            got="no value" if key == "" else redacted(value),
            remedy="add it, or leave such rows out with 'where'",
        )
    return entries[key]


def filled(row: TableRow, template: str) -> str:
    """A template with the texts of the columns that it names in braces.

    Raises:
        PromptError: if one of them is no column, or has no text.
    """
    parts = []
    for literal, column, _, _ in Formatter().parse(template):
        parts.append(literal)
        if column is not None:
            value = row.values.get(column)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            parts.append(str(value) if number else row.text(column))
    return "".join(parts)


def template_columns(template: str) -> tuple[str, ...]:
    """The columns that a template names.

    Raises:
        ValueError: if it names none, or holds a brace that is no column's.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError:  # Half a brace.
        parts = []
    columns = tuple(column for _, column, _, _ in parts if column is not None)
    if not columns or "" in columns or any(form or turn for _, _, form, turn in parts):
        raise ValueError("a template must name columns in braces, as in {question}")
    return columns
