"""Reading csv, tsv, jsonl, json and parquet files strictly, as rows with the place that each came from."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from palette.errors import PromptError
from palette.prompts.rows import redacted

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


def read_rows(path: Path, header: Sequence[str] = ()) -> tuple[TableRow, ...]:
    """The rows of a file, read by its ending: .csv, .tsv, .jsonl, .json or .parquet.

    ``header`` names the columns of a csv or tsv whose first line is a row already, or these names.

    Raises:
        PromptError: if the file cannot be read, is too large, breaks a law of its format, or has no row.
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
    rows = tuple(_separated(content, path, SEPARATORS[ending], header) if header else reader(content, path))
    if not rows:
        raise PromptError("a prompt file must have rows", got="none", where=path)
    return rows


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
    # A column that only some rows have is known by the rows that have it.
    every = frozenset().union(*(row.values for row in rows))
    if absent := sorted(set(names) - every):
        raise PromptError(
            "a column map must name columns of the file",
            got=", ".join(redacted(name) for name in absent),
            remedy=f"it has {', '.join(sorted(redacted(name) for name in every))}",
            where=path,
        )
    moved = []
    for row in rows:
        kept = {name: value for name, value in row.values.items() if name not in columns or name in names}
        moved.append(replace(row, values={names.get(name, name): value for name, value in kept.items()}))
    return moved


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
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            "a prompt file must be UTF-8",
            got=f"another byte at {error.start}",
            remedy="save it as UTF-8",
            where=path,
        ) from None


def _distinct(columns: Sequence[str], where: object) -> None:
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise PromptError("a column must stand once", got=f"{redacted(repeated[0])} twice", where=where)


def _separated(content: bytes, path: Path, separator: str, header: Sequence[str] = ()) -> Iterator[TableRow]:
    lines = csv.reader(io.StringIO(_text(content, path), newline=""), delimiter=separator, strict=True)
    try:
        columns = header or next(lines, [])
        _distinct(columns, path)
        for line in lines:
            where = f"{path}:{lines.line_num}"
            if header and lines.line_num == 1 and line == list(header):
                continue  # The header that such files lack stands in this one.
            # Tables parted by tabs are written with their last fields left off, and lack those columns then.
            short = separator == "\t" and len(line) < len(columns)
            if len(line) != len(columns) and line and not short:
                raise PromptError(
                    f"a row must have the header's {len(columns)} columns", got=len(line), where=where
                )
            if line:
                yield TableRow(dict(zip(columns, line, strict=False)), where)
    except csv.Error:
        raise PromptError(
            f"a {path.suffix[1:].lower()} file must be quoted rightly, its fields at most 128 KiB",
            got="another row",
            where=f"{path}:{lines.line_num}",
        ) from None


def _jsonl(content: bytes, path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(_text(content, path).split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield _object(_json(line, where), where)


def _json_rows(content: bytes, path: Path) -> Iterator[TableRow]:
    found = _json(_text(content, path), str(path))
    if isinstance(found, list):
        for number, value in enumerate(found, start=1):
            yield _object(value, f"{path}: row {number}")
        return
    for number, (key, value) in enumerate(_object(found, str(path)).values.items(), start=1):
        row = _object(value, f"{path}: row {number}")
        yield TableRow({KEY: key, **row.values}, row.where)


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


def _object(value: Any, where: str) -> TableRow:
    if not isinstance(value, dict):
        raise PromptError("a row must be one JSON object", got=type(value).__name__, where=where)
    return TableRow(value, where)


def _parquet(content: bytes, path: Path) -> Iterator[TableRow]:
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
READERS: Mapping[str, Callable[[bytes, Path], Iterator[TableRow]]] = {
    **{ending: partial(_separated, separator=mark) for ending, mark in SEPARATORS.items()},
    ".jsonl": _jsonl,
    ".json": _json_rows,
    ".parquet": _parquet,
}
