"""Reading a prompt file strictly by its ending, and its columns under the names of a schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from palette.errors import PaletteError, PromptError, together
from palette.prompts.rows import redacted
from palette.prompts.tables import READERS, SEPARATORS, TableRow, content_of, separated


def read_rows(
    path: Path, header: Sequence[str] = (), broken: list[PaletteError] | None = None
) -> tuple[TableRow, ...]:
    """The rows of a file, read by its ending: .csv, .tsv, .jsonl, .json or .parquet.

    ``header`` names the columns of a csv or tsv whose first line is a row already, or these names. What is
    wrong with single rows is added to ``broken``, where there is such a list.

    Raises:
        PromptError: if the file cannot be read, is too large, breaks a law of its format, or has no row;
            of rows that break one without a list ``broken``, all at once.
    """
    ending = path.suffix.casefold()
    reader = READERS.get(ending)
    if reader is None:
        raise PromptError(
            f"a prompt file must end in {', '.join(READERS)}", got=redacted(path.suffix), where=path
        )
    if header and ending not in SEPARATORS:
        raise PromptError(
            f"only a file that ends in {' or '.join(SEPARATORS)} may lack a header",
            got=redacted(path.suffix),
            remedy="leave 'header' out",
            where=path,
        )
    content = content_of(path)
    read = list(separated(content, path, SEPARATORS[ending], header) if header else reader(content, path))
    if not read:
        raise PromptError("a prompt file must have rows", got="none", where=path)
    wrong = [each for each in read if isinstance(each, PromptError)]
    if wrong and broken is None:
        raise together(wrong)
    if broken is not None:
        broken += wrong
    return tuple(each for each in read if isinstance(each, TableRow))


def shared_columns(rows: Iterable[TableRow]) -> frozenset[str]:
    """The columns that every row has."""
    return frozenset.intersection(*(frozenset(row.values) for row in rows))


def renamed(rows: Sequence[TableRow], columns: Mapping[str, str], path: Path) -> Sequence[TableRow]:
    """The rows under the schema's names of columns; ``columns`` says which of theirs has each.

    Raises:
        PromptError: if a column is named twice, or is not there.
    """
    if not columns:
        return rows
    names = {theirs: ours for ours, theirs in columns.items()}
    if len(names) < len(columns):
        raise PromptError(
            "a column map must name each column once", got="one for two", remedy="mend 'columns'", where=path
        )
    require_columns(rows, names, "a column map must name columns of the file", path)
    moved = []
    for row in rows:
        kept = {name: value for name, value in row.values.items() if name not in columns or name in names}
        moved.append(replace(row, values={names.get(name, name): value for name, value in kept.items()}))
    return moved


def require_columns(rows: Iterable[TableRow], named: Iterable[str], law: str, path: Path) -> None:
    """Returns when each named column is one of some row, at least.

    Raises:
        PromptError: naming those that are not, and all that there are.
    """
    every = frozenset().union(*(row.values for row in rows))
    if absent := sorted(set(named) - every):
        raise PromptError(
            law,
            got=", ".join(redacted(name) for name in absent),
            remedy=f"it has {', '.join(sorted(redacted(name) for name in every))}",
            where=path,
        )
