"""Ed25519 keys, each made for one purpose: what certifies cannot grant, and what grants cannot certify.

A private key is one PEM file that only its owner can read. The public ones that are trusted are a list,
``keys.json``, with when each began, was retired, or was revoked. A retired key signs nothing new, and what it
signed before holds; of a revoked one nothing holds, whenever it says that it was signed.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palette.errors import OutputError, SignatureError
from palette.files import OWNER_ONLY, atomic, read_json, require_owner_only, write_json
from palette.signing.instants import instant, maybe, told

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYS_FORMAT = "palette-keys/1"
RAW = 32
"""Bytes of a public key."""
NAME = 200
"""Characters of a holder's name at most."""


def require_library() -> None:
    """Returns nothing; what signs and verifies is ``cryptography``.

    Raises:
        SignatureError: if it is not installed.
    """
    if find_spec("cryptography") is None:
        raise SignatureError(
            "signatures need the package cryptography",
            got="none",
            remedy="pip install 'palette-llm[tenants]'",
        )


def same_person(one: str, other: str) -> bool:
    """Whether two names are one, however they are written: case, spaces and forms of letters aside."""
    first, second = (unicodedata.normalize("NFKC", name).casefold().split() for name in (one, other))
    return first == second


class Purpose(StrEnum):
    """What a key may sign, and nothing else."""

    CERTIFY = "certify"
    AUTHORISE = "authorise"
    LEDGER = "ledger"


@dataclass(frozen=True)
class PublicKey:
    """A key whose signatures are believed, for one purpose, from one instant on."""

    purpose: Purpose
    holder: str
    raw: bytes
    not_before: datetime
    retired: datetime | None = None
    revoked: datetime | None = None

    @property
    def id(self) -> str:
        """The SHA-256 (hex) of the key's 32 bytes, whole: no prefix of it names a key."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's, of this message."""
        require_library()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """The key as ``keys.json`` has it."""
        return {
            "id": self.id,
            "purpose": self.purpose.value,
            "holder": self.holder,
            "ed25519": self.raw.hex(),
            "not_before": told(self.not_before),
            "retired": told(self.retired) if self.retired else None,
            "revoked": told(self.revoked) if self.revoked else None,
        }


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs; it is never shown, and its text is its id."""

    public: PublicKey
    _key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.purpose.value}, {self.public.id})"


@dataclass(frozen=True)
class KeyRing:
    """The public keys that are trusted, by id."""

    keys: Mapping[str, PublicKey]

    @classmethod
    def of(cls, keys: Iterable[PublicKey]) -> KeyRing:
        """The ring of some keys.

        Raises:
            SignatureError: if one key is there for two purposes, which each key has one of.
        """
        held: dict[str, PublicKey] = {}
        for key in keys:
            if key.id in held:
                raise SignatureError("a key must stand once in a list of keys", got=f"{key.id} twice")
            held[key.id] = key
        return cls(held)

    def trusted(self, key_id: str, purpose: Purpose, signed: datetime) -> PublicKey:
        """The key of this id, if it is believed of what was signed for that purpose at that instant.

        Raises:
            SignatureError: if it is unknown, is of another purpose, was revoked, or did not sign then.
        """
        key = self.keys.get(key_id)
        if key is None:
            raise SignatureError(
                "a signature must be of a trusted key",
                got=f"one of {ascii(key_id)[:80]}",
                remedy="add it with palette keys trust, if its holder is",
            )
        if key.purpose is not purpose:
            raise SignatureError(f"a key to {purpose} must have signed this", got=f"one to {key.purpose}")
        if key.revoked is not None:
            raise SignatureError("a signing key must not be revoked", got=f"{key.id}, revoked")
        if signed < key.not_before or (key.retired is not None and signed >= key.retired):
            raise SignatureError(
                "a key must have been in use when it signed", got=f"{told(signed)} with {key.id}"
            )
        return key

    def with_key(self, key: PublicKey) -> KeyRing:
        """The ring with one more key.

        Raises:
            SignatureError: if it has that key already.
        """
        return KeyRing.of([*self.keys.values(), key])

    def retired(self, key_id: str, at: datetime, *, revoked: bool = False) -> KeyRing:
        """The ring with one key retired, or revoked, from then on; an earlier instant stays.

        Raises:
            SignatureError: if it has no such key.
        """
        key = self.keys.get(key_id)
        if key is None:
            raise SignatureError("a key must be known to be retired", got=ascii(key_id)[:80])
        changed = (
            replace(key, revoked=key.revoked or at) if revoked else replace(key, retired=key.retired or at)
        )
        return KeyRing({**self.keys, key_id: changed})

    def write(self, path: Path) -> None:
        """Writes the list, atomically.

        Raises:
            OutputError: if the disk cannot take it.
        """
        write_json(path, {"format": KEYS_FORMAT, "keys": [key.to_json() for key in self.keys.values()]})


def read_key_ring(path: Path) -> KeyRing:
    """The trusted keys of a ``keys.json``.

    Raises:
        OutputError: if the file is missing or is not JSON.
        SignatureError: if it is not a list of keys.
    """
    content = read_json(path)
    try:
        if content["format"] != KEYS_FORMAT:
            raise ValueError(f"a format of {content['format']!r}")
        return KeyRing.of([_key(row) for row in content["keys"]])
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            f"a list of keys must be of the format {KEYS_FORMAT}",
            got=f"{type(error).__name__}: {error}",
            remedy="write it with palette keys",
            where=path,
        ) from error


def _key(row: Mapping[str, Any]) -> PublicKey:
    key = PublicKey(
        Purpose(row["purpose"]),
        str(row["holder"]),
        bytes.fromhex(row["ed25519"]),
        instant(row["not_before"]),
        maybe(row["retired"]),
        maybe(row["revoked"]),
    )
    if len(key.raw) != RAW or key.id != row["id"]:
        raise ValueError(f"the key {row['id']!r}, which is not the id of its bytes")
    return key


def generate(path: Path, purpose: Purpose, holder: str, at: datetime) -> PrivateKey:
    """Makes a key and writes it as PEM (PKCS #8), readable by its owner alone; its public part beside it.

    Raises:
        SignatureError: if the holder has no name.
        OutputError: if the file is there already, or cannot be written.
    """
    require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not holder.strip() or len(holder) > NAME or not holder.isprintable():
        raise SignatureError("a key must have a holder, whose name can be printed", got=ascii(holder)[:80])
    if path.exists():
        raise OutputError(
            "a key is never written over another file", got="one", remedy="choose another", where=path
        )
    secret = Ed25519PrivateKey.generate()
    private = PrivateKey(_public(secret, purpose, holder.strip(), at), secret)
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with atomic(path) as temporary, open(temporary, "xb", opener=_owner_only) as stream:
        stream.write(pem)
    write_json(public_path(path), private.public.to_json())
    return private


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_ONLY)


def public_path(path: Path) -> Path:
    """Where the public part of a private key's file lies: what its holder gives to others."""
    return path.with_name(f"{path.name}.public.json")


def read_public(path: Path) -> PublicKey:
    """The key of a public part.

    Raises:
        OutputError: if the file is missing or is not JSON.
        SignatureError: if it is no key.
    """
    try:
        return _key(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            "a public key must be as palette keys writes it", got=error, where=path
        ) from error


def read_private(path: Path, purpose: Purpose) -> PrivateKey:
    """The key of a PEM file, for the purpose that its public part says.

    Raises:
        OutputError: if a file is missing or cannot be read.
        SignatureError: if it is no Ed25519 key, is of another purpose, or others can read it.
    """
    require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        mode, pem = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise OutputError(
            "a key's file must be readable",
            got=error.strerror,
            remedy="make one with palette keys new",
            where=path,
        ) from error
    require_owner_only("a private key", path, mode, SignatureError)
    try:
        secret = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # What the library says may quote the file.
        raise SignatureError(
            "a private key must be an unencrypted PEM", got="another file", where=path
        ) from None
    if not isinstance(secret, Ed25519PrivateKey):
        raise SignatureError("a key must be of the kind Ed25519", got="another kind", where=path)
    public = read_public(public_path(path))
    if public.raw != _public(secret, public.purpose, public.holder, public.not_before).raw:
        raise SignatureError(
            "a key's public part must be its own", got="another key's", where=public_path(path)
        )
    if public.purpose is not purpose:
        raise SignatureError(f"a key to {purpose} is needed", got=f"one to {public.purpose}", where=path)
    return PrivateKey(public, secret)


def _public(secret: Ed25519PrivateKey, purpose: Purpose, holder: str, at: datetime) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PublicKey(purpose, holder, raw, at)
