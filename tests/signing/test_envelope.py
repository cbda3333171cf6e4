from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import SignatureError
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign, verified
from palette.signing.envelope import encoded, strict_json
from palette.signing.instants import instant, told
from tests.fixtures.keys import NOW, key

TYPE = "application/vnd.palette.test+json"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return key(tmp_path_factory.mktemp("keys"), Purpose.AUTHORISE)


def signed(signer: PrivateKey, **content: object) -> Envelope:
    return sign(TYPE, json.dumps({"at": told(NOW), **content}).encode(), [signer])


def test_the_example_of_the_specification() -> None:
    """DSSE's own example: https://github.com/secure-systems-lab/dsse, protocol.md."""
    assert encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_what_was_signed_is_what_is_read(signer: PrivateKey) -> None:
    envelope = Envelope.read(signed(signer, word="yes").text)
    content, by = verified(envelope, KeyRing.of([signer.public]), Purpose.AUTHORISE, TYPE, ["at"])
    assert (content["word"], by) == ("yes", signer.public.id)


@given(st.data())
def test_no_byte_may_change(signer: PrivateKey, data: st.DataObject) -> None:
    envelope = signed(signer, word="yes")
    place = data.draw(st.integers(0, len(envelope.payload) - 1))
    changed = bytearray(envelope.payload)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureError):
        verified(
            replace(envelope, payload=bytes(changed)),
            KeyRing.of([signer.public]),
            Purpose.AUTHORISE,
            TYPE,
            ["at"],
        )


def test_a_type_is_signed_too(signer: PrivateKey) -> None:
    other = replace(signed(signer), payload_type=f"{TYPE}2")
    with pytest.raises(SignatureError, match="a signature must be of what it stands below"):
        verified(other, KeyRing.of([signer.public]), Purpose.AUTHORISE, f"{TYPE}2", ["at"])
    with pytest.raises(SignatureError, match="must be of the type"):
        verified(signed(signer), KeyRing.of([signer.public]), Purpose.AUTHORISE, f"{TYPE}2", ["at"])


def test_every_signature_must_hold(signer: PrivateKey, tmp_path: Path) -> None:
    other = key(tmp_path, Purpose.AUTHORISE, "Bob")
    ring = KeyRing.of([signer.public, other.public])
    both = sign(TYPE, signed(signer).payload, [signer, other])
    assert verified(both, ring, Purpose.AUTHORISE, TYPE, ["at"])
    wrong = replace(both, signatures=(both.signatures[0], (other.public.id, bytes(64))))
    with pytest.raises(SignatureError, match="of what it stands below"):
        verified(wrong, ring, Purpose.AUTHORISE, TYPE, ["at"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"payloadType": "t", "payload": "", "signatures": []}',
        '{"payloadType": "t", "payload": "*", "signatures": [{"keyid": "k", "sig": ""}]}',
        '{"payloadType": "t", "payload": 1, "signatures": [{"keyid": "k", "sig": ""}]}',
        '{"payloadType": "t", "payloadType": "u", "payload": "", "signatures": [{"keyid": "k", "sig": ""}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_told(text: str) -> None:
    with pytest.raises(SignatureError):
        Envelope.read(text)


@given(st.text() | st.binary().map(lambda content: base64.b64encode(content).decode()))
def test_no_text_is_a_traceback(text: str) -> None:
    for wrapped in (text, json.dumps({"payloadType": text, "payload": text, "signatures": [text]})):
        with pytest.raises(SignatureError):
            Envelope.read(wrapped)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": [{"b": 1, "b": 1}]}', "Infinity"])
def test_json_says_a_thing_once_and_numbers_are_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        strict_json(text)


@pytest.mark.parametrize(
    "text", ["2026-11-30T12:00:00+00:00", "2026-11-30", "2026-11-30T12:00:00.5Z", 7, "2026-1-30T12:00:00Z"]
)
def test_an_instant_is_told_in_one_way(text: object) -> None:
    with pytest.raises(ValueError):
        instant(text)


@given(st.datetimes(timezones=st.just(NOW.tzinfo)).map(lambda at: at.replace(microsecond=0)))
def test_an_instant_is_read_as_it_was_told(at: object) -> None:
    assert instant(told(at)) == at  # type: ignore[arg-type]
