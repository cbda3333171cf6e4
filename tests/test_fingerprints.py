from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.fingerprints import canonical, fingerprint, fingerprint_file, fingerprint_folder, versions

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_canonical_json_reads_back_as_the_same_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value


@given(VALUES)
def test_canonical_json_is_ascii_and_a_fixed_point(value: Any) -> None:
    text = canonical(value)
    assert text.isascii()
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(), SCALARS, max_size=6))
def test_the_order_of_keys_changes_no_fingerprint(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert fingerprint(backwards) == fingerprint(value)


@given(VALUES, VALUES)
def test_fingerprints_are_equal_exactly_when_canonical_texts_are(first: Any, second: Any) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (canonical(first) == canonical(second))


def test_canonical_json_has_sorted_keys_and_no_spaces() -> None:
    assert canonical({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"\\u00e9"]}'


def test_a_fingerprint_is_the_sha256_of_the_canonical_text() -> None:
    assert fingerprint([1]) == hashlib.sha256(b"[1]").hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_nan_and_infinities_have_no_canonical_json(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)


def test_what_json_cannot_say_has_no_canonical_json() -> None:
    with pytest.raises(TypeError):
        canonical({1, 2})


@pytest.mark.parametrize("length", [0, 1, 4, 5, 9])
def test_a_file_has_the_fingerprint_of_its_bytes(length: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(length)))
    assert fingerprint_file(path) == hashlib.sha256(bytes(range(length))).hexdigest()


def test_a_folder_is_known_by_the_names_and_bytes_of_the_files_that_match(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    first = fingerprint_folder(tmp_path, "*.txt")
    (tmp_path / "other.md").write_text("ignored")
    (tmp_path / "folder.txt").mkdir()
    assert fingerprint_folder(tmp_path, "*.txt") == first
    assert fingerprint_folder(tmp_path) != first
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    renamed = fingerprint_folder(tmp_path, "*.txt")
    assert renamed != first
    (tmp_path / "c.txt").write_text("three")
    assert fingerprint_folder(tmp_path, "*.txt") not in {first, renamed}


def test_versions_are_those_of_what_is_installed() -> None:
    found = versions(["pytest", "a-library-that-nobody-has"])
    assert list(found) == ["palette", "python", "pytest"]
    assert found["pytest"] == pytest.__version__
