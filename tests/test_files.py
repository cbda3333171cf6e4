from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from palette.errors import OutputError
from palette.files import (
    CARD_KEY,
    atomic,
    claim,
    owner_name,
    read_json,
    read_tensors,
    sorted_header,
    write_json,
    write_tensors,
    write_text,
)

OWNER = {"recipe": "medical", "digest": "0" * 64}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_file_is_written_whole_into_folders_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text"
    write_text(path, "naïve\n")
    assert path.read_bytes() == "naïve\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_stands_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "old")
    write_text(tmp_path / "text", "new")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["new"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with pytest.raises(OutputError) as caught:
        write_text(path, "new")
    assert str(caught.value) == (
        "an output file must be writable, got No space left on device; free space or choose another folder "
        f"with --output; nothing was half-written ({path})"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("old")
    with pytest.raises(OutputError, match="No space left"):
        write_json(path, {"new": 1})
    with pytest.raises(OutputError, match="No space left"):
        write_tensors(path, {"a": torch.zeros(1)}, {})
    assert [each.name for each in tmp_path.iterdir()] == ["text"]
    assert path.read_text() == "old"


def test_an_error_without_a_system_message_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must be writable, got odd;"), atomic(tmp_path / "text"):
        raise OSError("odd")


def test_a_block_that_fails_keeps_the_old_file_and_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError("mine")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_an_output_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with pytest.raises(OutputError, match="must be writable"):
        write_text(tmp_path / "text", "new")
    assert [each.name for each in tmp_path.iterdir()] == ["text"]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="must be writable"):
        write_text(tmp_path / "file" / "text", "new")


def test_json_keeps_the_order_given_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": [1, None], "a": "é"})
    assert path.read_text() == '{\n  "b": [\n    1,\n    null\n  ],\n  "a": "\\u00e9"\n}\n'
    assert read_json(path) == {"b": [1, None], "a": "é"}


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_json_that_is_missing_asks_for_its_stage(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    with pytest.raises(OutputError) as caught:
        read_json(path)
    assert str(caught.value) == f"an artefact must exist, got no such file; run its stage first ({path})"


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\xff\xfe"])
def test_json_that_is_damaged_asks_for_its_stage_again(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(data)
    with pytest.raises(OutputError) as caught:
        read_json(path)
    assert str(caught.value).startswith("an artefact must be valid JSON, got ")
    assert str(caught.value).endswith(f"; delete it and run its stage again ({path})")


def test_a_folder_where_json_should_be_is_damage(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must be valid JSON"):
        read_json(tmp_path)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {f"name{i}": torch.randn(2, 3, generator=generator) for i in (3, 1, 2)}
    return {
        **drawn,
        "turned": drawn["name1"].T,
        "half": drawn["name2"].to(torch.bfloat16),
        "learned": torch.ones(1, requires_grad=True),
    }


def test_tensors_and_their_card_read_back_as_they_were(tmp_path: Path) -> None:
    card = {"z": [1, 2.5, None], "a": {"é": True}}
    write_tensors(tmp_path / "t", tensors(), card)
    read, read_card = read_tensors(tmp_path / "t")
    assert read_card == card
    assert list(read) == sorted(tensors())
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_other_readers_of_safetensors_can_read_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", tensors(), {})
    assert torch.equal(load_file(tmp_path / "t")["name1"], tensors()["name1"])


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    card = {f"key{i}": i for i in range(8)}
    write_tensors(tmp_path / "one", tensors(), card)
    write_tensors(tmp_path / "two", dict(reversed(tensors().items())), dict(reversed(card.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_same_tensors_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from palette.files import write_tensors; "
        "write_tensors(Path(sys.argv[1]), {'b': torch.ones(2), 'a': torch.zeros(1)}, {'k': 1})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one")], check=True)
    write_tensors(tmp_path / "two", {"a": torch.zeros(1), "b": torch.ones(2)}, {"k": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), st.just("v"), max_size=5)
)
def test_a_sorted_header_holds_the_same_and_sorting_it_again_changes_nothing(
    metadata: dict[str, str],
) -> None:
    data = save({"b": torch.ones(3), "a": torch.zeros(2)}, metadata=metadata)
    once = sorted_header(data)
    lengths = [int.from_bytes(each[:8], "little") for each in (data, once)]
    headers = [json.loads(each[8 : 8 + length]) for each, length in zip((data, once), lengths, strict=True)]
    assert headers[0] == headers[1]
    assert list(headers[1]) == sorted(headers[1])
    assert lengths[1] % 8 == 0
    assert once[8 + lengths[1] :] == data[8 + lengths[0] :]
    assert sorted_header(once) == once


def damaged(path: Path, kind: str) -> None:
    if kind == "cut short":
        write_tensors(path, {"a": torch.ones(100)}, {})
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "no safetensors":
        path.write_bytes(b"not a tensor")
    elif kind == "no card":
        save_file({"a": torch.ones(1)}, path)
    elif kind == "another's card":
        save_file({"a": torch.ones(1)}, path, metadata={"format": "pt"})
    elif kind == "a card that is no JSON":
        save_file({"a": torch.ones(1)}, path, metadata={CARD_KEY: "{"})


@pytest.mark.parametrize(
    "kind", ["missing", "cut short", "no safetensors", "no card", "another's card", "a card that is no JSON"]
)
def test_an_artefact_that_is_missing_damaged_or_foreign_asks_for_its_stage_again(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.safetensors"
    damaged(path, kind)
    with pytest.raises(OutputError) as caught:
        read_tensors(path)
    if kind == "missing":
        assert str(caught.value) == f"an artefact must exist, got no such file; run its stage first ({path})"
        return
    assert str(caught.value).startswith("an artefact must be a safetensors file with Palette's card, got ")
    assert str(caught.value).endswith(f"; delete it and run its stage again ({path})")


@pytest.mark.parametrize("made", [True, False])
def test_a_new_or_empty_folder_is_taken_and_stays_its_owners(made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    claim(folder, OWNER)
    (folder / "result").write_text("mine")
    claim(folder, OWNER)
    assert read_json(folder / "run.json") == OWNER
    assert (folder / "result").read_text() == "mine"


def test_a_folder_of_another_recipe_is_refused_and_kept(tmp_path: Path) -> None:
    claim(tmp_path, OWNER)
    with pytest.raises(OutputError) as caught:
        claim(tmp_path, {**OWNER, "recipe": "legal"})
    assert str(caught.value) == (
        f"an output folder serves one recipe, got a folder of recipe medical, digest {'0' * 24}; "
        f"choose another with --output, or delete it ({tmp_path})"
    )
    assert read_json(tmp_path / "run.json") == OWNER


@pytest.mark.parametrize("kind", ["a folder of files", "a file", "another marker"])
def test_a_place_that_holds_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if kind == "a file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / ("other.json" if kind == "another marker" else "notes")).write_text("{}")
    with pytest.raises(OutputError) as caught:
        claim(place, OWNER)
    assert str(caught.value) == (
        "an output folder must be new, empty or this recipe's own, got files of something else; "
        f"choose another with --output ({place})"
    )


@pytest.mark.parametrize(
    ("owner", "name"),
    [({"a": "x" * 30, "b": 1}, f"a {'x' * 24}, b 1"), (["x" * 60], f"['{'x' * 46}"), ({}, "")],
)
def test_an_owner_is_described_shortly(owner: Any, name: str) -> None:
    assert owner_name(owner) == name
