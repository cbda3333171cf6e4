from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import OutputError, StoreError
from palette.gateway.credentials import (
    PEPPER,
    Pepper,
    make_pepper,
    new_key,
    parsed,
    pepper_path,
    read_pepper,
)

PARTS = st.lists(st.text() | st.none() | st.integers(), max_size=4)


def test_a_key_is_256_random_bits_behind_its_id() -> None:
    keys = [new_key() for _ in range(200)]
    assert len({text for _, text in keys}) == len({key_id for key_id, _ in keys}) == 200
    for key_id, text in keys:
        found = parsed(text)
        assert found is not None
        assert found[0] == key_id
        assert len(bytes.fromhex(found[1])) == 32


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda t: t + "\n", lambda t: t[:-1], lambda t: " " + t, lambda t: t.replace("a", "\u0430")],
)
def test_what_is_not_quite_a_key_is_none(change: Callable[[str], str]) -> None:
    text = f"pk_{'a' * 16}_{'ab' * 32}"
    assert parsed(text) is not None
    assert parsed(change(text)) is None


@given(PARTS, PARTS)
def test_other_values_have_another_mac(one: list[object], other: list[object]) -> None:
    pepper = Pepper(b"p" * 32)
    assert (pepper.mac(*one) == pepper.mac(*other)) is (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )
    assert pepper.is_mac(pepper.mac(*one), *one)
    assert not Pepper(b"q" * 32).is_mac(pepper.mac(*one), *one)
    assert not pepper.is_mac("", *one)


def test_a_pepper_is_its_owners_alone_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pepper"
    made = make_pepper(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_pepper(path).mac("x") == made.mac("x")
    assert path.read_text().strip() not in repr(made)
    with pytest.raises(StoreError, match="never written over"):
        make_pepper(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match=r"by its owner alone, got mode 640; chmod 600"):
        read_pepper(path)


@pytest.mark.parametrize("content", ["", "a" * 63, "A" * 64, "a" * 64 + "\n\n", "é" * 64])
def test_another_file_is_no_pepper_and_is_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pepper"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"must be 64 hexadecimal digits, got another file") as told:
        read_pepper(path)
    assert "aaaa" not in str(told.value).casefold()


def test_a_pepper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must be readable, got No such file .*PALETTE_PEPPER_FILE"):
        read_pepper(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, StoreError)):
        make_pepper(tmp_path / "file" / "pepper")


def test_where_a_pepper_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PEPPER, raising=False)
    assert pepper_path(tmp_path / "a.db", tmp_path / "data") == tmp_path / "a.db.pepper"
    assert pepper_path(None, tmp_path / "data") == tmp_path / "data" / "palette.pepper"
    monkeypatch.setenv(PEPPER, os.fspath(tmp_path / "mine"))
    assert pepper_path(tmp_path / "a.db", tmp_path) == tmp_path / "mine"
