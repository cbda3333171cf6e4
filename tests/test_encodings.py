"""Every of Unicode's encodings gives the same text; any other one is named and never guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.encodings import NotUnicodeError, decoded
from palette.prompts import load_prompts, load_source
from palette.settings import read_yaml

ENCODINGS = {
    "utf-8": b"", "utf-8-sig": b"", "utf-16": b"", "utf-32": b"", "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip
"""Encodings, and the mark that has to be put before what Python writes."""


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1))
def test_a_marked_text_is_read_back(encoding: str, text: str) -> None:
    if encoding != "utf-8" or text.isascii():
        assert decoded(ENCODINGS[encoding] + text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_text_without_its_mark_is_known_by_its_zeros(encoding: str) -> None:
    assert decoded("id,prompt\n1,é€".encode(encoding)) == "id,prompt\n1,é€"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "cp850", "mac-roman", "shift-jis"])
def test_a_code_page_is_named_and_not_guessed(encoding: str) -> None:
    text = "id,prompt\n1,Привет\n" if encoding == "cp1251" else "id,prompt\n1,café\n"
    text = "id,prompt\n1,\u65e5\u672c\n" if encoding == "shift-jis" else text
    with pytest.raises(NotUnicodeError, match=r"^byte 0x[0-9a-f]{2} in line 2, "):
        decoded(text.encode(encoding))


@pytest.mark.parametrize("cut", [1, 3])
def test_a_text_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(NotUnicodeError, match="broken UTF-16 at byte"):
        decoded("id,prompt\n".encode("utf-16")[:-cut])


@given(st.binary())
def test_any_bytes_are_a_text_or_named(content: bytes) -> None:
    try:
        assert isinstance(decoded(content), str)
    except NotUnicodeError as error:
        assert str(error)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "yaml"])
def test_every_text_file_may_have_a_mark(encoding: str, ending: str, tmp_path: Path) -> None:
    texts = {
        "csv": "id,prompt,kind\n1,why é?,benign\n", "tsv": "id\tprompt\tkind\n1\twhy é?\tbenign\n",
        "jsonl": '{"id": "1", "prompt": "why é?", "kind": "benign"}\n',
        "json": '[{"id": "1", "prompt": "why é?", "kind": "benign"}]',
        "yaml": "prompt: why é?\n",
    }  # fmt: skip
    path = tmp_path / f"ward.{ending}"
    path.write_bytes(ENCODINGS[encoding] + texts[ending].encode(encoding))
    if ending == "yaml":
        assert read_yaml(path) == {"prompt": "why é?"}
        return
    assert [row.prompt for row in load_source(path).prompts] == ["why é?"]
    if ending == "jsonl":
        assert [row.prompt for row in load_prompts(tmp_path)] == ["why é?"]


def test_the_remedy_helps(tmp_path: Path) -> None:
    path = tmp_path / "ward.csv"
    path.write_bytes("id,prompt,kind\n1,what’s a café,benign\n".encode("cp1252"))
    with pytest.raises(Exception, match="save it as UTF-8") as caught:
        load_source(path)
    assert "byte 0x92 in line 2" in str(caught.value)
    path.write_text(path.read_text(encoding="cp1252"), encoding="utf-8-sig")
    assert [row.prompt for row in load_source(path).prompts] == ["what’s a café"]
