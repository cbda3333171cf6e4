"""The rows of a csv, tsv, jsonl, json or parquet file, each with the place that it came from."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from palette.encodings import REMEDY, NotUnicodeError, decoded
from palette.errors import PromptError
from palette.prompts.rows import redacted, repeated

LARGEST = 64 * 1024**2
"""Bytes of a file, and of a parquet file's content once unpacked: far above any of the known sets."""
PART = 64
"""Rows of a parquet file that are unpacked at once."""
KEY = "(key)"
"""The column that holds a row's key where a JSON file gives rows by key."""
MARKS = (",", ";", "\t", "|")
STATED = re.compile(r'"?sep=([^\w"\r\n])"?[,;\t| ]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
"""A first line of some spreadsheets, which says the mark."""
SAMPLED, ROWS = 1 << 16, 8
"""Characters and rows of a table that are looked at."""


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


def content_of(path: Path) -> bytes:
    """The bytes of a prompt file.

    Raises:
        PromptError: if it cannot be read, or is too large.
    """
    try:
        _refuse_large(path.stat().st_size, path)
        return path.read_bytes()
    except OSError as error:
        raise PromptError("a prompt file must be readable", got=error.strerror, where=path) from None


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


def separated(content: bytes, path: Path, usual: str, header: Sequence[str] = ()) -> Iterator[Read]:
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
    filled = {place for line, _ in found for place, cell in enumerate(line) if cell.strip()}
    kept = [place for place, name in enumerate(columns) if name or place in filled]
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


def _jsonl(content: bytes, path: Path) -> Iterator[Read]:
    for number, line in enumerate(_text(content, path).split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield _object(_json(line, where), where)
            except PromptError as error:
                yield error


def _json_rows(content: bytes, path: Path) -> Iterator[Read]:
    found = _json(_text(content, path), str(path))
    rows: list[tuple[dict[str, Any], Any]]
    if isinstance(found, list):
        rows = [({}, value) for value in found]
    else:
        rows = [({KEY: key}, value) for key, value in _object(found, str(path)).values.items()]
    for number, (before, value) in enumerate(rows, start=1):
        try:
            yield _object(value, f"{path}: row {number}", before)
        except PromptError as error:
            yield error


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


def separator_of(text: str, usual: str, width: int = 0) -> tuple[str, int]:
    """The mark between the columns of a table, and where its rows begin; ``width`` is how many it must have.

    A csv file is parted by what gives its first rows the same number of columns, and the most of them.
    """
    if stated := STATED.match(text):
        return stated[1], stated.end()
    if usual != ",":
        return usual, 0
    sample = text[:SAMPLED]
    head = next((line for line in sample.splitlines() if line.strip()), "")
    found = [mark for mark in MARKS if mark in head]
    widths = {mark: _width(sample, mark) for mark in found}
    fitting = [mark for mark in found if widths[mark] > 1 and width in (0, widths[mark])]
    if fitting:
        return max(fitting, key=lambda mark: widths[mark]), 0
    if usual in head or width or not found:
        return usual, 0
    return max(found, key=head.count), 0


def _width(sample: str, mark: str) -> int:
    """The columns of the first rows, or 0 where they have not the same number."""
    try:
        rows = [
            row for row in islice(csv.reader(io.StringIO(sample, newline=""), delimiter=mark), ROWS) if row
        ]
    except csv.Error:
        return 0
    widths = {len(row) for row in rows}
    return widths.pop() if len(widths) == 1 else 0


SEPARATORS = {".csv": ",", ".tsv": "\t"}
READERS: Mapping[str, Callable[[bytes, Path], Iterator[Read]]] = {
    **{ending: partial(separated, usual=mark) for ending, mark in SEPARATORS.items()},
    ".jsonl": _jsonl,
    ".json": _json_rows,
    ".parquet": _parquet,
}
