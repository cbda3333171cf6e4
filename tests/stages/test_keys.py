"""Keys made, trusted, listed, retired and revoked."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from palette.errors import OutputError, SignatureError
from palette.stages.keys import list_keys, new_key, retire_key, revoke_key, trust_keys


def test_a_key_is_its_owner_s_alone_and_shows_its_public_part(tmp_path: Path) -> None:
    path = tmp_path / "board.pem"
    made = new_key(path, "certify", "The Board")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(Path(made["public"]).read_text())["id"] == made["id"]
    secret = path.read_text().splitlines()[1]
    assert secret not in json.dumps(made) + Path(made["public"]).read_text()
    with pytest.raises(OutputError, match="never written over another file"):
        new_key(path, "certify", "The Board")


def test_keys_are_trusted_and_listed(tmp_path: Path) -> None:
    ring = tmp_path / "keys.json"
    one = new_key(tmp_path / "one.pem", "certify", "The Board", trust=ring)
    other = new_key(tmp_path / "other.pem", "authorise", "The Office")
    listed = trust_keys([other["public"]], ring)
    assert [key["id"] for key in listed["keys"]] == [one["id"], other["id"]]
    assert list_keys(ring) == listed
    assert listed["hold_both"] == []
    with pytest.raises(SignatureError, match="must stand once in a list"):
        trust_keys([other["public"]], ring)
    assert list_keys(ring) == listed


def test_one_who_holds_both_is_named(tmp_path: Path) -> None:
    ring = tmp_path / "keys.json"
    new_key(tmp_path / "one.pem", "certify", "The Board", trust=ring)
    grants = new_key(tmp_path / "other.pem", "authorise", "the board", trust=ring)
    assert list_keys(ring)["hold_both"] == ["the board"]
    assert retire_key(grants["id"], ring)["hold_both"] == []


def test_the_first_instant_of_an_end_stays(tmp_path: Path) -> None:
    ring = tmp_path / "keys.json"
    key = new_key(tmp_path / "one.pem", "ledger", "The Ledger", trust=ring)
    (retired,) = retire_key(key["id"], ring)["keys"]
    (revoked,) = revoke_key(Path(key["public"]), ring)["keys"]
    assert revoked["retired"] == retired["retired"]
    assert revoked["revoked"]
    assert revoke_key(key["id"], ring)["keys"] == [revoked]


@pytest.mark.parametrize("given", ["0" * 64, "", "one.pem", "../keys.json"])
def test_a_key_is_ended_by_its_whole_id(tmp_path: Path, given: str) -> None:
    ring = tmp_path / "keys.json"
    key = new_key(tmp_path / "one.pem", "certify", "The Board", trust=ring)
    for name in (given, key["id"][:20]):
        with pytest.raises(SignatureError, match="a key must be known to be retired"):
            retire_key(name, ring)


def test_what_is_wrong_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="one purpose of certify, authorise, ledger, got 'all'"):
        new_key(tmp_path / "a.pem", "all", "The Board")
    with pytest.raises(SignatureError, match="must have a holder"):
        new_key(tmp_path / "a.pem", "certify", " ")
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(SignatureError, match="a list of keys must be of the format"):
        new_key(tmp_path / "a.pem", "certify", "The Board", trust=tmp_path / "keys.json")
    with pytest.raises(OutputError):
        list_keys(tmp_path / "none.json")
    with pytest.raises(OutputError):
        trust_keys([tmp_path / "none.json"], tmp_path / "new.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json"]
