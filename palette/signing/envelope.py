"""DSSE envelopes (v1.0.2): a payload, its type, and who signed both.

What is signed is ``DSSEv1 len(type) type len(payload) payload``, so that no payload can pass for one of
another type. What is verified is what is read: the payload's bytes come from the envelope that was checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from palette.errors import SignatureError
from palette.signing.instants import instant
from palette.signing.keys import KeyRing, PrivateKey, Purpose

LONGEST = 8 * 1024 * 1024
"""Bytes of an envelope at most."""


@dataclass(frozen=True)
class Envelope:
    """A payload of a type, and signatures by key id."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of what was signed, which names a statement whoever signs it once more."""
        return hashlib.sha256(encoded(self.payload_type, self.payload)).hexdigest()

    @property
    def text(self) -> str:
        """The envelope as one line of JSON."""
        held = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": key, "sig": base64.b64encode(signature).decode()}
                for key, signature in self.signatures
            ],
        }
        return json.dumps(held)

    @classmethod
    def read(cls, text: str) -> Envelope:
        """The envelope of a JSON text.

        Raises:
            SignatureError: if it is none, is too long, or says a thing twice.
        """
        if len(text) > LONGEST:
            raise SignatureError(f"an envelope must have at most {LONGEST} characters", got=len(text))
        try:
            held = strict_json(text)
            found = cls(
                _text(held["payloadType"]),
                _bytes(held["payload"]),
                tuple((_text(each["keyid"]), _bytes(each["sig"])) for each in held["signatures"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise SignatureError(
                "a signed statement must be a DSSE envelope", got=f"{type(error).__name__}: {error}"
            ) from error
        if not found.signatures:
            raise SignatureError("an envelope must be signed", got="no signature")
        return found


def encoded(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, keys: Sequence[PrivateKey]) -> Envelope:
    """The payload in an envelope that each of the keys has signed."""
    message = encoded(payload_type, payload)
    return Envelope(payload_type, payload, tuple((key.public.id, key.sign(message)) for key in keys))


def verified(
    envelope: Envelope, ring: KeyRing, purpose: Purpose, payload_type: str, signed: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """What a trusted key has signed, as JSON, and that key's id.

    ``signed`` is the path of the payload's field that says when; every signature must hold.

    Raises:
        SignatureError: if one does not, a key is not trusted for the purpose at that instant, the type is
            another one, or the payload is not JSON.
    """
    if envelope.payload_type != payload_type:
        raise SignatureError(
            f"a signed statement must be of the type {payload_type}", got=ascii(envelope.payload_type)[:80]
        )
    message = encoded(envelope.payload_type, envelope.payload)
    try:
        content = strict_json(envelope.payload.decode())
        at = instant(reduce(getitem, signed, content))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SignatureError(
            "a signed statement must be JSON and say when it was signed",
            got=f"{type(error).__name__}: {error}",
        ) from error
    for key_id, signature in envelope.signatures:
        if not ring.trusted(key_id, purpose, at).verify(signature, message):
            raise SignatureError("a signature must be of what it stands below", got="another one")
    return content, envelope.signatures[0][0]


def strict_json(text: str) -> Any:
    """The value of a JSON text in which no name stands twice and no number is not one.

    Raises:
        ValueError: if it is none.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text}, which is no number of JSON")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text is expected, got {type(value).__name__}")
    return value


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
