from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from palette.errors import PromptError
from palette.prompts import tables
from palette.prompts.reading import read_rows, shared_columns
from palette.prompts.tables import KEY

ROWS = [{"id": "1", "prompt": "Why, oh\nwhy?"}, {"id": "2", "prompt": "“Who”?"}]


def error(path: Path) -> str:
    with pytest.raises(PromptError) as caught:
        read_rows(path)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "CSV"])
def test_every_ending_gives_the_same_rows(ending: str, write: Any) -> None:
    path = write(f"a.{ending.lower()}", ROWS)
    path = path.rename(path.with_suffix(f".{ending}"))
    rows = read_rows(path)
    assert [row.values for row in rows] == ROWS
    assert shared_columns(rows) == {"id", "prompt"}
    assert all(row.where.startswith(str(path)) for row in rows)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,prompt\r\n1,Why?\r\n".encode("utf-8-sig"))
    assert [row.values for row in read_rows(path)] == [{"id": "1", "prompt": "Why?"}]


def test_rows_by_key_hold_their_key(write: Any) -> None:
    rows = read_rows(write("a.json", ROWS, by_key=True))
    assert [row.values[KEY] for row in rows] == ["0", "1"]


def test_columns_are_those_that_every_row_has(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "b": 2}\n\n{"a": 1, "c": 3}\n')
    assert shared_columns(read_rows(path)) == {"a"}


def test_a_table_without_a_header_is_read_by_given_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('1\tWhy?\n2\t"Who"\n')
    found = [{"id": "1", "prompt": "Why?"}, {"id": "2", "prompt": "Who"}]
    assert [row.values for row in read_rows(path, ("id", "prompt"))] == found
    path.write_text("id\tprompt\n1\tWhy?\n2\tWho\n")
    assert [row.values for row in read_rows(path, ("id", "prompt"))] == found
    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    with pytest.raises(PromptError) as caught:
        read_rows(path, ("id",))
    assert str(caught.value) == (
        f"only a file that ends in .csv or .tsv may lack a header, got '.jsonl'; leave 'header' out ({path})"
    )
    assert len(read_rows(path)) == 1


def test_a_row_between_tabs_may_leave_its_last_columns_off(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\tprompt\tnote\n1\tWhy?\n2\tWho?\tx\n")
    assert [row.values for row in read_rows(path)] == [
        {"id": "1", "prompt": "Why?"},
        {"id": "2", "prompt": "Who?", "note": "x"},
    ]


SECRET = "a sentence that no error may show"
BROKEN: list[tuple[str, bytes, str]] = [
    ("a.txt", b"x", "a prompt file must end in .csv, .tsv, .jsonl, .json, .parquet, got '.txt' (PATH)"),
    (
        "a.csv",
        b"a\n\xff",
        "a prompt file must be UTF-8, got byte 0xff in line 2, as an ANSI code page such as Windows-1252 has "
        "it; save it as UTF-8 (in Excel: 'CSV UTF-8') (PATH)",
    ),
    ("a.csv", b"a,b,a\n1,2,3\n", "a column must stand once, got 'a' twice (PATH)"),
    ("a.csv", f"a,b\n1,{SECRET},3\n".encode(), "a row must have the header's 2 columns, got 3 (PATH:2)"),
    (
        "a.csv",
        f'a\n"{SECRET}"x\n'.encode(),
        "a csv file must be quoted rightly, got another row (PATH:2)",
    ),
    (
        "a.csv",
        f'a\n"{SECRET}'.encode(),
        "a csv file must be quoted rightly, got another row (PATH:2)",
    ),
    ("a.tsv", f"a\tb\n1\t{SECRET}\t3\n".encode(), "a row must have the header's 2 columns, got 3 (PATH:2)"),
    (
        "a.tsv",
        f'a\n"{SECRET}'.encode(),
        "a tsv file must be quoted rightly, got another row (PATH:2)",
    ),
    ("a.csv", b"", "a prompt file must have rows, got none (PATH)"),
    ("a.csv", b"a,b\n", "a prompt file must have rows, got none (PATH)"),
    ("a.jsonl", b"\n", "a prompt file must have rows, got none (PATH)"),
    ("a.json", b"[]", "a prompt file must have rows, got none (PATH)"),
    (
        "a.jsonl",
        f'{{"a": "{SECRET}}}'.encode(),
        "a row must be valid JSON, got something else at its line 1; mend it (PATH:1)",
    ),
    ("a.jsonl", f'["{SECRET}"]'.encode(), "a row must be one JSON object, got list (PATH:1)"),
    ("a.jsonl", b'{"a": 1, "a": 2}', "a column must stand once, got 'a' twice (PATH:1)"),
    (
        "a.jsonl",
        f'{{"{SECRET}": 1, "{SECRET}": 2}}'.encode(),
        "a column must stand once, got a text of 33 characters twice (PATH:1)",
    ),
    ("a.json", f'"{SECRET}"'.encode(), "a row must be one JSON object, got str (PATH)"),
    ("a.json", f'["{SECRET}"]'.encode(), "a row must be one JSON object, got str (PATH: row 1)"),
    ("a.json", f'{{"{SECRET}": 1}}'.encode(), "a row must be one JSON object, got int (PATH: row 1)"),
    ("a.json", b"[" * 100_000, "a row must be valid JSON, got something else; mend it (PATH)"),
    ("a.json", b"[" + b"9" * 5000 + b"]", "a row must be valid JSON, got something else; mend it (PATH)"),
    ("a.parquet", SECRET.encode(), "a parquet file must be whole, got a broken one (PATH)"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BROKEN)
def test_a_broken_file_is_refused_without_its_text(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    assert error(path) == sentence.replace("PATH", str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert error(path) == f"a prompt file must be readable, got No such file or directory ({path})"


def test_a_file_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b" " * 2 * 1024**2)
    monkeypatch.setattr(tables, "LARGEST", 1024**2)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert error(path) == f"a prompt file must hold at most 1 MiB, got 2.0 MiB; divide it ({path})"


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    path = write("a.parquet", [{"prompt": "why " * 1000} for _ in range(2000)])
    assert path.stat().st_size < 1024**2
    monkeypatch.setattr(tables, "LARGEST", 1024**2)
    assert error(path).startswith("a prompt file must hold at most 1 MiB, got 1.")
    monkeypatch.setattr(tables, "LARGEST", 64 * 1024**2)
    assert len(read_rows(path)) == 2000


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    path = write("a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert error(path) == (
        f"a parquet file is read by pyarrow, got no pyarrow; pip install 'palette-llm[data]' ({path})"
    )


def test_the_cause_of_an_error_is_not_carried_along(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": SECRET})[:-1])
    with pytest.raises(PromptError) as caught:
        read_rows(path)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None
