"""Reading csv, tsv, jsonl, json and parquet files strictly, as rows with the place that each came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from palette.encodings import REMEDY, NotUnicodeError, decoded
from palette.errors import PaletteError, PromptError, together
from palette.prompts.rows import redacted, repeated
from palette.prompts.separators import separator_of

LARGEST = 64 * 1024**2
"""Bytes of a file, and of a parquet file's content once unpacked: far above any of the known sets."""
PART = 64
"""Rows of a parquet file that are unpacked at once."""
KEY = "(key)"
"""The column that holds a row's key where a JSON file gives rows by key."""


@dataclass(frozen=True)
class TableRow:
    """The values of one row by column, and where it stands."""

    values: Mapping[str, Any]
    where: str
    part: str = ""
    """The part of a dataset that it is of, where each part numbers its rows for itself."""

    def error(self, law: str, got: object, remedy: str | None = None) -> PromptError:
        """What to say of the row: the law that it breaks, what was got, and the remedy."""
        return PromptError(law, got=got, remedy=remedy, where=self.where)

    def text(self, column: str) -> str:
        """The text of a column.

        Raises:
            PromptError: if it is none, or is empty.
        """
        value = self.values.get(column)
        if isinstance(value, str) and value.strip():
            return value
        empty = value is None or isinstance(value, str)
        got = "an empty one" if empty else f"a value of type {type(value).__name__}"
        raise self.error(f"{column} must be a text that is not empty", got=got)


Read = TableRow | PromptError
"""A row, or what is wrong with it."""


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
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise PromptError("a prompt file must be readable", got=error.strerror, where=path) from None
    _refuse_large(size, path)
    read = list(_separated(content, path, SEPARATORS[ending], header) if header else reader(content, path))
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


def _refuse_large(size: int, path: Path) -> None:
    if size > LARGEST:
        raise PromptError(
            f"a prompt file must hold at most {LARGEST // 1024**2} MiB",
            got=f"{size / 1024**2:.1f} MiB",
            remedy="divide it",
            where=path,
        )


def _text(content: bytes, path: Path) -> str:
    try:
        return decoded(content)
    except NotUnicodeError as error:
        raise PromptError("a prompt file must be UTF-8", got=error, remedy=REMEDY, where=path) from None


def _distinct(columns: Sequence[str], where: object) -> None:
    if twice := repeated(columns):
        shown = ", ".join(redacted(name) for name in twice)
        raise PromptError("a column must stand once", got=f"{shown} twice", where=where)


def _separated(content: bytes, path: Path, usual: str, header: Sequence[str] = ()) -> Iterator[Read]:
    """The rows of a table whose columns a mark parts, as spreadsheets write it.

    They leave blank rows and nameless columns where cells once were, and some say the mark in a first line.
    """
    text = _text(content, path)
    separator, start = separator_of(text, usual, len(header))
    stream, before = io.StringIO(text[start:], newline=""), text[:start].count("\n")
    lines = csv.reader(stream, delimiter=separator, strict=True)
    found: list[tuple[list[str], str]] = []
    # A set may hold a picture in a field; a file is no larger than it may be.
    usual_most = csv.field_size_limit(LARGEST)
    try:
        for line in lines:
            if any(cell.strip() for cell in line):
                found.append((line, f"{path}:{before + lines.line_num}"))
    except csv.Error:
        yield PromptError(
            f"a {path.suffix[1:].lower()} file must be quoted rightly",
            got="another row",
            where=f"{path}:{before + lines.line_num}",
        )
    finally:
        csv.field_size_limit(usual_most)
    if header and found and found[0][0] == list(header):
        del found[0]  # The header that such files lack stands in this one.
    columns = header or ([name.strip() for name in found.pop(0)[0]] if found else [])
    kept = [place for place, name in enumerate(columns) if name or _is_filled(found, place)]
    if sum(not columns[place] for place in kept) > 1:
        raise PromptError(
            "a column with values must have a name",
            got=f"none for {sum(not columns[place] for place in kept)}",
            remedy="name them in the header, or empty them",
            where=path,
        )
    _distinct([columns[place] for place in kept], path)
    # Tables parted by tabs are written with their last fields left off, and lack those columns then.
    least = 0 if usual == "\t" else max(kept, default=-1) + 1
    for line, where in found:
        if len(line) < least or any(cell.strip() for cell in line[len(columns) :]):
            law = f"a row must have the header's {len(columns)} columns"
            yield PromptError(law, got=len(line), where=where)
        else:
            yield TableRow({columns[place]: line[place] for place in kept if place < len(line)}, where)


def _is_filled(lines: Iterable[tuple[list[str], str]], place: int) -> bool:
    return any(line[place].strip() for line, _ in lines if place < len(line))


def _jsonl(content: bytes, path: Path) -> Iterator[Read]:
    for number, line in enumerate(_text(content, path).split("\n"), start=1):
        if line.strip():
            yield _tried(partial(_line, line), f"{path}:{number}")


def _line(line: str, where: str) -> TableRow:
    return _object(_json(line, where), where)


def _json_rows(content: bytes, path: Path) -> Iterator[Read]:
    found = _json(_text(content, path), str(path))
    rows: list[tuple[dict[str, Any], Any]] = (
        [({}, value) for value in found] if isinstance(found, list) else []
    )
    if not isinstance(found, list):
        rows = [({KEY: key}, value) for key, value in _object(found, str(path)).values.items()]
    for number, (before, value) in enumerate(rows, start=1):
        yield _tried(partial(_object, value, before=before), f"{path}: row {number}")


def _tried(read: Callable[[str], TableRow], where: str) -> Read:
    """A row, or what is wrong with it."""
    try:
        return read(where)
    except PromptError as error:
        return error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=partial(_unique, where))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise PromptError(
            "a row must be valid JSON",
            got="something else" + (f" at its line {line}" if line else ""),
            remedy="mend it",
            where=where,
        ) from None


def _unique(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _distinct([name for name, _ in pairs], where)
    return dict(pairs)


def _object(value: Any, where: str, before: Mapping[str, Any] = MappingProxyType({})) -> TableRow:
    if not isinstance(value, dict):
        raise PromptError("a row must be one JSON object", got=type(value).__name__, where=where)
    return TableRow({**before, **value}, where)


def _parquet(content: bytes, path: Path) -> Iterator[Read]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise PromptError(
            "a parquet file is read by pyarrow",
            got="no pyarrow",
            remedy="pip install 'palette-llm[data]'",
            where=path,
        ) from None
    unpacked, number = 0, 0
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        _distinct(file.schema_arrow.names, path)
        # In small parts, since a value that stands a million times is stored once.
        for part in file.iter_batches(batch_size=PART, use_threads=False):
            unpacked += part.nbytes
            _refuse_large(unpacked, path)
            for row in part.to_pylist():
                number += 1
                yield TableRow(row, f"{path}: row {number}")
    except (arrow.ArrowException, OSError):
        raise PromptError("a parquet file must be whole", got="a broken one", where=path) from None


SEPARATORS = {".csv": ",", ".tsv": "\t"}
READERS: Mapping[str, Callable[[bytes, Path], Iterator[Read]]] = {
    **{ending: partial(_separated, usual=mark) for ending, mark in SEPARATORS.items()},
    ".jsonl": _jsonl,
    ".json": _json_rows,
    ".parquet": _parquet,
}
