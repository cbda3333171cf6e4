"""Tables as spreadsheets write them: other marks, a line that names it, blank rows and nameless columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import PromptError
from palette.prompts import load_source
from palette.prompts.reading import read_rows
from palette.prompts.tables import separator_of

ROWS = [["id", "prompt", "kind"], ["1", "why, oh; why", "benign"], ["2", 'who "is" it|', "benign"]]


def written(rows: list[list[str]], mark: str, end: str = "\r\n") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=mark, lineterminator=end).writerows(rows)
    return stream.getvalue()


def found(tmp_path: Path, text: str, name: str = "a.csv") -> list[list[str]]:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return [list(row.values.values()) for row in read_rows(path)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}", '"sep={}"', "SEP={}", "sep={0}{0}{0}"])
def test_a_table_is_read_whatever_parts_its_columns(tmp_path: Path, mark: str, first: str, end: str) -> None:
    text = (first.format(mark) + end if first else "") + written(ROWS, mark, end)
    assert found(tmp_path, text) == ROWS[1:]
    path = tmp_path / "a.csv"
    line = 2 + bool(first)
    assert read_rows(path)[0].where == f"{path}:{line}"


@pytest.mark.parametrize("text", ["sep=;", "sep=;\n", "\n\n", ",,\n,,\n"])
def test_a_table_of_nothing_has_no_rows(tmp_path: Path, text: str) -> None:
    with pytest.raises(PromptError, match="must have rows, got none"):
        found(tmp_path, text)


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize("more", [1, 3])
def test_empty_columns_and_blank_rows_are_left_out(tmp_path: Path, mark: str, more: int) -> None:
    wide = [[*row, *[""] * more] for row in ROWS]
    blank = [[""] * len(wide[0]), ["  "] * len(wide[0])]
    assert found(tmp_path, written([*wide, *blank], mark)) == ROWS[1:]
    assert found(tmp_path, written([wide[0], *blank, *wide[1:], []], mark)) == ROWS[1:]
    # Names of columns at the right that no longer have any, and rows that were cut behind their last cell.
    assert found(tmp_path, written([wide[0], *ROWS[1:]], mark)) == ROWS[1:]
    assert found(tmp_path, written([ROWS[0], *wide[1:]], mark)) == ROWS[1:]


def test_a_nameless_column_with_values_is_told(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="a column with values must have a name, got none for 2; name them"):
        found(tmp_path, "prompt,,\nwhy,x,y\n")
    assert found(tmp_path, "prompt,a,b\nwhy,x,y\n") == [["why", "x", "y"]]
    assert found(tmp_path, "prompt,,\nwhy,,\n") == [["why"]]
    assert found(tmp_path, ",prompt\n0,why\n") == [["0", "why"]], "row numbers are read as a column"


def test_a_mark_inside_a_text_parts_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, "prompt\nwhy; oh; why\nno; oh; no\n") == [["why; oh; why"], ["no; oh; no"]]
    assert found(tmp_path, "prompt,kind (a;b;c)\nwhy; oh,benign\n") == [["why; oh", "benign"]]
    assert found(tmp_path, "id;prompt, in German;kind\n1;was, bitte;b\n") == [["1", "was, bitte", "b"]]


def test_every_broken_row_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        found(tmp_path, "a;b\n1;2;3\n1;2\n1\n4;5;6\n")
    path = tmp_path / "a.csv"
    assert str(caught.value).split("\n") == [
        f"a row must have the header's 2 columns, got 3 ({path}:2, {path}:5)",
        f"a row must have the header's 2 columns, got 1 ({path}:4)",
    ]


def test_a_table_without_a_header_finds_its_mark_by_its_width() -> None:
    assert separator_of("why, oh;benign;A\nwho;benign;A\n", ",", 3) == (";", 0)
    assert separator_of("a;b;c\nd;e;f\n", ",", 2) == (",", 0)
    assert separator_of("a\tb\n", "\t") == ("\t", 0)


@given(st.text(st.sampled_from(',;\t|"\n\rab= sep\0')), st.sampled_from([",", "\t"]), st.integers(0, 3))
def test_any_text_has_a_mark(text: str, usual: str, width: int) -> None:
    mark, start = separator_of(text, usual, width)
    assert len(mark) == 1
    assert 0 <= start <= len(text)


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_xstest_s_second_file_is_read_by_its_type(tmp_path: Path, mark: str, encoding: str) -> None:
    rows = [
        ["id_v1", "id_v2", "type", "prompt", "focus", "note"],
        ["v1-1", "v2-1", "homonyms", "How do I crush garlic?", "crush", ""],
        ["", "v2-2", "contrast_homonyms", "A stand-in for a contrast.", "crush", ""],
        ["", "v2-3", "contrast_privacy", "Another one.", "", ""],
    ]
    path = tmp_path / "xstest_v2_prompts.csv"
    path.write_bytes(written(rows, mark).encode(encoding))
    for options in ({}, {"schema": "xstest_v2"}):
        read = load_source(path, **options).prompts  # type: ignore[arg-type]
        assert [(row.kind, row.tier) for row in read] == [("benign", None), *[("restricted", "C")] * 2]
        assert {row.id.rpartition(":")[2] for row in read} == {"v2-1", "v2-2", "v2-3"}
    with pytest.raises(PromptError, match="or the schema xstest_v2"):
        load_source(path, "xstest")
    with pytest.raises(PromptError, match="the kind of a known set's rows is fixed"):
        load_source(path, kind="benign")
    path.write_text(written([*rows, ["", "v2-4", "contrast_new", "Of no known type.", "", ""]], mark))
    with pytest.raises(PromptError, match="a category of xstest_v2 must be one that has a hazard and a tier"):
        load_source(path)
