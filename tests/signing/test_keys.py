from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from palette.errors import OutputError, SignatureError
from palette.signing import KeyRing, Purpose, generate, read_key_ring, read_private
from palette.signing.keys import public_path, read_public
from tests.fixtures.keys import DAY, NOW, key


def test_a_key_is_read_as_it_was_made_and_signs(tmp_path: Path) -> None:
    made = key(tmp_path, Purpose.CERTIFY)
    path = tmp_path / "certify-Ada.pem"
    assert (path.stat().st_mode & 0o777, read_public(public_path(path))) == (0o600, made.public)
    again = read_private(path, Purpose.CERTIFY)
    assert made.public.verify(again.sign(b"words"), b"words")
    assert not made.public.verify(again.sign(b"words"), b"other words")


def test_a_private_key_shows_no_secret(tmp_path: Path) -> None:
    made = key(tmp_path, Purpose.LEDGER)
    lines = (tmp_path / "ledger-Ada.pem").read_text().splitlines()
    assert repr(made) == f"PrivateKey(ledger, {made.public.id})"
    assert not any(line in f"{made!r} {made}" for line in lines[1:-1])


def test_a_key_is_never_written_over_a_file(tmp_path: Path) -> None:
    key(tmp_path, Purpose.CERTIFY)
    before = (tmp_path / "certify-Ada.pem").read_bytes()
    with pytest.raises(OutputError, match="never written over"):
        key(tmp_path, Purpose.CERTIFY)
    assert (tmp_path / "certify-Ada.pem").read_bytes() == before


def test_one_purpose_each(tmp_path: Path) -> None:
    key(tmp_path, Purpose.CERTIFY)
    with pytest.raises(SignatureError, match="a key to authorise is needed, got one to certify"):
        read_private(tmp_path / "certify-Ada.pem", Purpose.AUTHORISE)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused_and_the_remedy_helps(tmp_path: Path, mode: int) -> None:
    key(tmp_path, Purpose.CERTIFY)
    path = tmp_path / "certify-Ada.pem"
    path.chmod(mode)
    with pytest.raises(SignatureError, match="chmod 600"):
        read_private(path, Purpose.CERTIFY)
    path.chmod(0o600)
    assert read_private(path, Purpose.CERTIFY).public.holder == "Ada"


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(SignatureError) as told:
        read_private(path, Purpose.CERTIFY)
    assert "AAAA" not in str(told.value) and "no key" not in str(told.value)


def test_another_keys_public_part_is_found(tmp_path: Path) -> None:
    key(tmp_path, Purpose.CERTIFY)
    key(tmp_path, Purpose.CERTIFY, "Bob")
    public_path(tmp_path / "certify-Ada.pem").write_bytes(
        public_path(tmp_path / "certify-Bob.pem").read_bytes()
    )
    with pytest.raises(SignatureError, match="its own, got another key's"):
        read_private(tmp_path / "certify-Ada.pem", Purpose.CERTIFY)


@pytest.mark.parametrize("holder", ["", "  ", "a\nb", "x" * 201])
def test_a_holder_has_a_name(tmp_path: Path, holder: str) -> None:
    with pytest.raises(SignatureError, match="holder"):
        generate(tmp_path / "k.pem", Purpose.CERTIFY, holder, NOW)
    assert not list(tmp_path.iterdir())


def test_what_is_trusted_when(tmp_path: Path) -> None:
    public = key(tmp_path, Purpose.CERTIFY).public
    ring = KeyRing.of([public])
    assert ring.trusted(public.id, Purpose.CERTIFY, NOW) == public
    with pytest.raises(SignatureError, match="in use when it signed"):
        ring.trusted(public.id, Purpose.CERTIFY, public.not_before - DAY)
    with pytest.raises(SignatureError, match="a key to authorise"):
        ring.trusted(public.id, Purpose.AUTHORISE, NOW)
    with pytest.raises(SignatureError, match="of a trusted key"):
        ring.trusted(public.id[:-1], Purpose.CERTIFY, NOW)
    retired = ring.retired(public.id, NOW)
    assert retired.trusted(public.id, Purpose.CERTIFY, NOW - DAY).id == public.id
    with pytest.raises(SignatureError, match="in use when it signed"):
        retired.trusted(public.id, Purpose.CERTIFY, NOW)
    with pytest.raises(SignatureError, match="revoked"):
        ring.retired(public.id, NOW, revoked=True).trusted(public.id, Purpose.CERTIFY, NOW - DAY)


def test_a_revocation_is_not_taken_back_by_a_later_one(tmp_path: Path) -> None:
    public = key(tmp_path, Purpose.CERTIFY).public
    ring = (
        KeyRing.of([public]).retired(public.id, NOW, revoked=True).retired(public.id, NOW + DAY, revoked=True)
    )
    assert ring.keys[public.id].revoked == NOW


def test_a_ring_is_read_as_it_was_written(tmp_path: Path) -> None:
    ring = KeyRing.of(key(tmp_path, purpose).public for purpose in Purpose)
    ring = ring.retired(next(iter(ring.keys)), NOW)
    ring.write(tmp_path / "keys.json")
    assert read_key_ring(tmp_path / "keys.json") == ring
    with pytest.raises(SignatureError, match="stand once"):
        ring.with_key(next(iter(ring.keys.values())))


@pytest.mark.parametrize(
    "change",
    [
        {"ed25519": "00" * 32},
        {"ed25519": "00"},
        {"purpose": "everything"},
        {"not_before": "2026-11-30"},
        {"not_before": None},
        {"id": "0" * 64},
    ],
)
def test_a_list_whose_keys_are_not_what_they_say_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    ring = KeyRing.of([key(tmp_path, Purpose.CERTIFY).public])
    ring.write(tmp_path / "keys.json")
    content = json.loads((tmp_path / "keys.json").read_text())
    content["keys"][0] |= change
    (tmp_path / "keys.json").write_text(json.dumps(content))
    with pytest.raises(SignatureError, match="a list of keys must be of the format"):
        read_key_ring(tmp_path / "keys.json")
