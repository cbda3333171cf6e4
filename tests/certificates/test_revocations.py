"""The list of revoked certificates: signed, growing, and never an earlier one in place of a later."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.certificates.revocations import (
    REVOCATIONS_TYPE,
    Revocations,
    read_revocations,
    write_revocations,
)
from palette.errors import SignatureError
from palette.signing import sign
from tests.certificates.conftest import NOW, Office

ONE, OTHER = "1" * 64, "2" * 64


def test_what_was_revoked_stays_so_since_the_first_time(tmp_path: Path, office: Office) -> None:
    path = tmp_path / "revoked.dsse.json"
    first = Revocations().revoked(ONE, NOW, "weights leaked")
    again = first.revoked(ONE, NOW + timedelta(days=1), "once more").revoked(OTHER, NOW, "a drill")
    write_revocations(path, again.signed(office.certifier, NOW))
    found = read_revocations(path, office.ring)
    assert found == again
    assert found.number == 3
    assert found.certificates[ONE] == (NOW, "weights leaked")
    assert found.instants == {ONE: NOW, OTHER: NOW}


@given(st.lists(st.sampled_from([ONE, OTHER, "3" * 64]), max_size=8))
def test_a_list_only_grows(ids: list[str]) -> None:
    held = Revocations()
    for number, each in enumerate(ids, 1):
        after = held.revoked(each, NOW + timedelta(seconds=number), "why")
        assert after.number == number
        assert held.certificates.items() <= after.certificates.items()
        held = after
    assert set(held.certificates) == set(ids)


def test_an_earlier_list_is_refused_by_who_knows_a_later_one(tmp_path: Path, office: Office) -> None:
    path = tmp_path / "revoked.dsse.json"
    write_revocations(path, Revocations().revoked(ONE, NOW, "a").signed(office.certifier, NOW))
    assert read_revocations(path, office.ring, least=1).number == 1
    with pytest.raises(SignatureError, match="must be the latest, got number 1, where 2 is known"):
        read_revocations(path, office.ring, least=2)


@pytest.mark.parametrize("name", ["stranger", "authoriser"])
def test_a_list_of_nobody_s_is_refused(tmp_path: Path, office: Office, name: str) -> None:
    path = tmp_path / "revoked.dsse.json"
    write_revocations(path, Revocations().signed(getattr(office, name), NOW))
    with pytest.raises(SignatureError):
        read_revocations(path, office.ring)


@pytest.mark.parametrize(
    "content",
    [
        {"format": "palette-revocations/2", "number": 1, "revoked": []},
        {"format": "palette-revocations/1", "number": -1, "revoked": []},
        {"format": "palette-revocations/1", "number": True, "revoked": []},
        {"format": "palette-revocations/1", "number": 1, "revoked": [{"certificate": ONE}]},
        {"format": "palette-revocations/1", "number": 1, "revoked": [1]},
        {"format": "palette-revocations/1", "number": 1,
         "revoked": [{"certificate": ONE, "revoked": "2026-11-30T12:00:00Z", "reason": ""}] * 2},
        {"number": 1},
    ],
)  # fmt: skip
def test_a_signed_list_of_another_form_is_one_sentence(
    tmp_path: Path, office: Office, content: dict[str, object]
) -> None:
    path = tmp_path / "revoked.dsse.json"
    payload = json.dumps({"issued": "2026-11-30T12:00:00Z", **content}).encode()
    write_revocations(path, sign(REVOCATIONS_TYPE, payload, [office.certifier]))
    with pytest.raises(SignatureError, match="of the format palette-revocations/1"):
        read_revocations(path, office.ring)


def test_a_list_that_is_not_there_is_not_an_empty_one(tmp_path: Path, office: Office) -> None:
    with pytest.raises(SignatureError, match="must be readable, got No such file"):
        read_revocations(tmp_path / "none", office.ring)
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(SignatureError, match="must be readable, got no text"):
        read_revocations(tmp_path / "text", office.ring)


@pytest.mark.parametrize("given", ["1" * 63, "A" * 64, "", "../x", "1" * 65])
def test_what_is_no_id_cannot_be_revoked(given: str) -> None:
    with pytest.raises(SignatureError, match="revoked by its id"):
        Revocations().revoked(given, NOW, "why")


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
def test_a_reason_is_needed(reason: str) -> None:
    with pytest.raises(SignatureError, match="must have a reason"):
        Revocations().revoked(ONE, NOW, reason)
