from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from palette.errors import PromptError
from palette.prompts import load_prompts, messages
from palette.prompts.pictures import MARK
from palette.prompts.rows import case_folded_hash, split_by_hash

ROW = {"id": "1", "prompt": "How?", "kind": "restricted"}
KEYS = "id, prompt, kind, split, tier, cell, answer, hazard, image"


def write(folder: Path, name: str, *rows: Any) -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def error(folder: Path) -> str:
    with pytest.raises(PromptError) as caught:
        load_prompts(folder)
    return str(caught.value)


def test_rows_are_ordered_by_domain_and_then_as_their_files_order_them(tmp_path: Path) -> None:
    write(tmp_path, "medical.jsonl", {**ROW, "id": "b"}, "", "  ", {**ROW, "id": "a", "prompt": "Why?"})
    write(tmp_path, "legal.jsonl", {**ROW, "id": "z", "prompt": "Who?"})
    write(tmp_path, "notes.txt", "not a row")
    assert [(row.domain, row.id) for row in load_prompts(tmp_path)] == [
        ("legal", "z"),
        ("medical", "b"),
        ("medical", "a"),
    ]


def test_a_row_keeps_every_label_it_gives(tmp_path: Path) -> None:
    labels = {"split": "test", "tier": "B", "hazard": "spc", "answer": "So."}
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, "medical.jsonl", {**ROW, **labels, "image": "a.png"})
    (row,) = load_prompts(tmp_path, answers=True)
    assert {key: getattr(row, key) for key in labels} == labels
    assert (row.id, row.domain, row.kind) == ("1", "medical", "restricted")
    assert (row.prompt, [picture.path for picture in row.pictures]) == (f"{MARK}How?", [tmp_path / "a.png"])


def test_labels_that_a_row_does_not_give_are_none(tmp_path: Path) -> None:
    write(tmp_path, "medical.jsonl", ROW)
    (row,) = load_prompts(tmp_path, answers=True)
    assert (row.answer, row.tier, row.hazard, row.pictures) == (None, None, None, ())


def test_reference_answers_are_stripped_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "medical.jsonl", {**ROW, "answer": "So."})
    assert [row.answer for row in load_prompts(tmp_path)] == [None]
    assert [row.answer for row in load_prompts(tmp_path, answers=True)] == ["So."]
    assert load_prompts(tmp_path).fingerprint == load_prompts(tmp_path, answers=True).fingerprint


def test_a_row_may_accept_several_answers_the_first_of_which_is_the_reference(tmp_path: Path) -> None:
    write(
        tmp_path, "medical.jsonl", {**ROW, "answer": ["So.", "Thus."]}, {**ROW, "id": "2", "prompt": "Why?"}
    )
    several, none = load_prompts(tmp_path, answers=True)
    assert (several.answer, several.accepted, none.accepted) == ("So.", ("So.", "Thus."), ())
    assert "Thus" not in repr(several)
    assert [row.accepted for row in load_prompts(tmp_path)] == [(), ()]
    assert load_prompts(tmp_path).fingerprint == load_prompts(tmp_path, answers=True).fingerprint


def test_messages_read_back_as_they_were_written(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"content": "How?", "role": "user"}]
    write(tmp_path, "medical.jsonl", {**ROW, "prompt": chat})
    (row,) = load_prompts(tmp_path)
    assert messages(row) == chat


def test_a_row_without_a_split_has_that_of_its_prompts_hash(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(i), "prompt": f"How {i}?"} for i in range(40)]
    write(tmp_path, "medical.jsonl", *rows)
    found = load_prompts(tmp_path)
    assert {row.split for row in found} == {"train", "validation", "test"}
    assert all(row.split == split_by_hash(case_folded_hash(row)) for row in found)


def test_a_split_by_hash_does_not_move_when_rows_are_added_or_labelled(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    write(
        tmp_path / "one", "medical.jsonl", *({**ROW, "id": str(i), "prompt": f"How {i}?"} for i in range(20))
    )
    write(
        tmp_path / "two",
        "legal.jsonl",
        *({**ROW, "id": f"x{i}", "prompt": f" HOW  {i}?", "kind": "benign"} for i in reversed(range(30))),
    )
    one = {case_folded_hash(row): row.split for row in load_prompts(tmp_path / "one")}
    two = {case_folded_hash(row): row.split for row in load_prompts(tmp_path / "two")}
    assert one.items() <= two.items()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert error(folder) == (
        "prompts must be a folder of <domain>.jsonl files, got no such folder; "
        f"give its path as 'prompts' ({folder})"
    )


def test_a_folder_without_a_prompt_file_is_refused(tmp_path: Path) -> None:
    assert error(tmp_path) == (
        "prompts must be a folder of <domain>.jsonl files, got a folder without one; "
        f"give its path as 'prompts' ({tmp_path})"
    )


@pytest.mark.parametrize("name", ["Medical", "-medical", "medi cal", "médical", "a" * 65, "a.b"])
def test_a_domain_with_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"{name}.jsonl", ROW)
    assert error(tmp_path) == (
        f"a domain's name must be lower-case letters, digits, '-' and '_', got {name!r}; "
        f"rename the file ({path})"
    )


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "medical.jsonl"
    path.write_bytes(b"\xff\x00\xfe")
    assert error(tmp_path).startswith("a prompt file must be UTF-8, got byte 0xff in line 1, ")
    path.write_bytes(json.dumps(ROW).encode("utf-16"))
    assert len(load_prompts(tmp_path)) == 1


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "medical.jsonl").mkdir()
    assert error(tmp_path).startswith("a prompt file must be readable, got Is a directory (")


def test_a_domain_without_a_row_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "legal.jsonl", ROW)
    path = write(tmp_path, "medical.jsonl", "")
    assert error(tmp_path) == f"a prompt file must have rows, got none ({path})"


def test_a_byte_order_mark_is_read_away(tmp_path: Path) -> None:
    (tmp_path / "medical.jsonl").write_text(json.dumps(ROW), encoding="utf-8-sig")
    assert len(load_prompts(tmp_path)) == 1


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path, "medical.jsonl", '{"id": "1", "prompt": "How?", "kind": "benign", "kind": "restricted"}'
    )
    assert error(tmp_path) == f"a column must stand once, got 'kind' twice ({path}:1)"


def test_a_line_that_is_not_json_is_refused_with_its_number(tmp_path: Path) -> None:
    path = write(tmp_path, "medical.jsonl", ROW, "", "{'id': 2}")
    assert error(tmp_path) == (
        f"a row must be valid JSON, got something else at its line 1; mend it ({path}:3)"
    )


LAWS: list[tuple[Any, str]] = [
    ([1], "a row must be one JSON object, got list"),
    ({**ROW, "tire": "A", "Kind": 1}, f"a row may have {KEYS}, got Kind, tire; remove it"),
    ({"id": "1", "prompt": "How?"}, "kind must be one of restricted, benign, got None"),
    ({**ROW, "kind": "harmful"}, "kind must be one of restricted, benign, got 'harmful'"),
    ({**ROW, "split": "dev"}, "split must be one of train, validation, test, got 'dev'"),
    ({**ROW, "split": None}, "split must be one of train, validation, test, got None"),
    ({**ROW, "tier": "c"}, "tier must be one of A, B, C, got 'c'"),
    ({**ROW, "tier": ["C"]}, "tier must be one of A, B, C, got ['C']"),
    ({"prompt": "How?", "kind": "benign"}, "a row must have an id, got none; give each row one"),
    ({**ROW, "id": 7}, "id must be a text that is not empty, got 7"),
    ({**ROW, "id": ""}, "id must be a text that is not empty, got ''"),
    ({**ROW, "answer": ""}, "answer must be a text that is not empty, or a list of such, got ''"),
    ({**ROW, "answer": []}, "answer must be a text that is not empty, or a list of such, got []"),
    (
        {**ROW, "answer": ["So.", 5]},
        "answer must be a text that is not empty, or a list of such, got a value of type list",
    ),
    ({**ROW, "answer": None}, "answer must be a text that is not empty, or a list of such, got None"),
    ({**ROW, "hazard": None}, "hazard must be a text that is not empty, got None"),
    ({**ROW, "image": 3}, "image must be a path, or a list of such, got int"),
]
PROMPT = "prompt must be a text, or a list of {role, content} messages, got "
LAWS += [({**ROW, "prompt": value}, f"{PROMPT}an empty one") for value in (None, "", [], {})]
LAWS += [
    ({**ROW, "prompt": "  "}, f"{PROMPT}str"),
    ({**ROW, "prompt": 5}, f"{PROMPT}int"),
    ({**ROW, "prompt": ["How?"]}, f"{PROMPT}list"),
    ({**ROW, "prompt": [{"role": "user"}]}, f"{PROMPT}list"),
    ({**ROW, "prompt": [{"role": "user", "content": ""}]}, f"{PROMPT}list"),
    ({**ROW, "prompt": [{"role": "user", "content": 1}]}, f"{PROMPT}list"),
    ({**ROW, "prompt": [{"role": "user", "content": "a", "name": "b"}]}, f"{PROMPT}list"),
]


@pytest.mark.parametrize(("row", "law"), LAWS)
def test_a_row_that_breaks_a_law_is_refused_with_its_line(row: Any, law: str, tmp_path: Path) -> None:
    path = write(tmp_path, "medical.jsonl", {**ROW, "id": "first"}, row)
    assert error(tmp_path) == f"{law} ({path}:2)"


def test_an_id_may_not_stand_twice_even_in_two_domains(tmp_path: Path) -> None:
    write(tmp_path, "legal.jsonl", ROW)
    write(tmp_path, "medical.jsonl", {**ROW, "prompt": "Why?"})
    assert error(tmp_path) == f"an id must be unique, got '1' twice ({tmp_path})"


@pytest.mark.parametrize("again", ["How?", "HOW?", "  how?\n", [{"role": "user", "content": "how?"}]])
def test_a_prompt_may_not_stand_in_two_splits_however_it_is_written(again: Any, tmp_path: Path) -> None:
    write(tmp_path, "legal.jsonl", {**ROW, "split": "train"})
    write(tmp_path, "medical.jsonl", {**ROW, "id": "2", "prompt": again, "split": "test"})
    assert error(tmp_path) == (
        "a prompt must stand in one split only, got '1' in train and '2' in test; "
        f"remove one of them ({tmp_path})"
    )


def test_a_prompt_may_stand_twice_in_one_split(tmp_path: Path) -> None:
    write(tmp_path, "medical.jsonl", ROW, {**ROW, "id": "2", "prompt": "how? "})
    assert len(load_prompts(tmp_path)) == 2


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_inside_a_prompt_does_not_end_its_row(mark: str, tmp_path: Path) -> None:
    row = json.dumps({**ROW, "prompt": f"one{mark}two"}, ensure_ascii=False)
    (tmp_path / "medical.jsonl").write_text(row + "\n", encoding="utf-8")
    assert [each.prompt for each in load_prompts(tmp_path)] == [f"one{mark}two"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": "a \ud83d"}, "a prompt must be Unicode, got half a character (a lone surrogate)"),
        (
            {"prompt": [{"role": "user", "content": "\ude00"}]},
            "a prompt must be Unicode, got half a character",
        ),
        ({"prompt": [{"role": "\ud83d", "content": "a"}]}, "a prompt must be Unicode, got half a character"),
        ({"answer": ["so", "\ud83d"]}, "an answer must be Unicode, got half a character"),
        ({"id": "\ud83d"}, "id must be Unicode, got half a character"),
        ({"prompt": "a\0b"}, "a prompt must have no control characters, got U+0000; leave it out"),
        ({"answer": "\0"}, "an answer must have no control characters, got U+0000; leave it out"),
        ({"id": "a\nb"}, "id must have no control characters, got U+000A; leave it out"),
        ({"id": "a\x1b[0m"}, "id must have no control characters, got U+001B; leave it out"),
        ({"hazard": "x\x85"}, "hazard must have no control characters, got U+0085; leave it out"),
    ],
)
def test_a_text_that_would_break_what_reads_it_is_refused_with_its_row(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "medical.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, "id": "2", **change})))
    found = error(tmp_path)
    assert found.startswith(sentence)
    assert found.endswith(f"({path}:2)")


def test_a_whole_character_of_two_escapes_is_none_of_these(tmp_path: Path) -> None:
    path = tmp_path / "medical.jsonl"
    row = '{"id": "\\ud83d\\ude00", "prompt": "a \\ud83d\\ude00\\n\\tb", "kind": "benign"}'
    path.write_text(row)
    assert load_prompts(tmp_path).rows[0].prompt == "a \U0001f600\n\tb"


def test_every_fault_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    rows = [{**ROW, "kind": "x"}, ROW, {**ROW, "split": "y"}, {**ROW, "kind": "x"}, {**ROW, "prompt": "Who?"}]
    for name in ("medical", "legal"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "[\n")
    paths = [tmp_path / f"{name}.jsonl" for name in ("legal", "medical")]
    told = error(tmp_path).split("\n")
    assert [line.partition(",")[0] for line in told] == [
        "a row must be valid JSON", "kind must be one of restricted", "split must be one of train",
        "an id must be unique",
    ]  # fmt: skip
    assert told[0].endswith(f"({paths[0]}:6, {paths[1]}:6)")
    assert told[1].endswith(f"({paths[0]}:1, {paths[0]}:4, {paths[1]}:1, {paths[1]}:4)")
