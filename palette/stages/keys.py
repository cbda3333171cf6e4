"""The keys verbs: keys made, trusted, listed, retired and revoked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palette.errors import SignatureError
from palette.signing import KeyRing, Purpose, generate, read_key_ring
from palette.signing.instants import now
from palette.signing.keys import public_path, read_public

KEYS = "keys.json"


def new_key(path: Path | str, purpose: str, holder: str, trust: Path | str | None = None) -> dict[str, Any]:
    """The key that was made and written to ``path``, and its public part beside it.

    With ``trust`` it is added to that list of trusted keys.

    Raises:
        OutputError: if a file is there already, or cannot be written.
        SignatureError: if the purpose is none, or the holder has no name.
    """
    path = Path(path)
    ring = _ring(Path(trust)) if trust is not None else None
    private = generate(path, _purpose(purpose), holder, now().replace(microsecond=0))
    if ring is not None and trust is not None:
        ring.with_key(private.public).write(Path(trust))
    return {
        **private.public.to_json(),
        "private": str(path),
        "public": str(public_path(path)),
        "trusted_in": str(trust) if trust is not None else None,
    }


def _purpose(text: str) -> Purpose:
    try:
        return Purpose(text)
    except ValueError as error:
        known = ", ".join(Purpose)
        raise SignatureError(f"a key must have one purpose of {known}", got=ascii(text)[:80]) from error


def _ring(path: Path) -> KeyRing:
    return read_key_ring(path) if path.exists() else KeyRing({})


def trust_keys(public: Sequence[Path | str], keys: Path | str = KEYS) -> dict[str, Any]:
    """The trusted keys once those of some public parts are added; the list is made where there is none.

    Raises:
        OutputError: if a file cannot be read or written.
        SignatureError: if one is no key, or is trusted already.
    """
    ring = _ring(Path(keys))
    for path in public:
        ring = ring.with_key(read_public(Path(path)))
    ring.write(Path(keys))
    return _listed(ring, Path(keys))


def list_keys(keys: Path | str = KEYS) -> dict[str, Any]:
    """The trusted keys, and who holds both what certifies and what authorises.

    Raises:
        OutputError: if the list cannot be read.
        SignatureError: if it is none.
    """
    return _listed(read_key_ring(Path(keys)), Path(keys))


def _listed(ring: KeyRing, path: Path) -> dict[str, Any]:
    in_use = [key for key in ring.keys.values() if key.retired is None and key.revoked is None]
    holders = {
        purpose: {key.holder.casefold() for key in in_use if key.purpose is purpose} for purpose in Purpose
    }
    return {
        "file": str(path),
        "keys": [key.to_json() for key in ring.keys.values()],
        "hold_both": sorted(holders[Purpose.CERTIFY] & holders[Purpose.AUTHORISE]),
    }


def retire_key(key: Path | str, keys: Path | str = KEYS) -> dict[str, Any]:
    """The trusted keys once one is retired: it signs nothing new, and what it signed before holds.

    ``key`` is an id, whole, or the file of its public part.

    Raises:
        OutputError: if a file cannot be read or written.
        SignatureError: if it is not trusted.
    """
    return _ended(key, Path(keys), revoked=False)


def revoke_key(key: Path | str, keys: Path | str = KEYS) -> dict[str, Any]:
    """The trusted keys once one is revoked: nothing holds that it ever signed.

    Raises:
        OutputError: if a file cannot be read or written.
        SignatureError: if it is not trusted.
    """
    return _ended(key, Path(keys), revoked=True)


def _ended(key: Path | str, keys: Path, *, revoked: bool) -> dict[str, Any]:
    ring = read_key_ring(keys)
    named = read_public(Path(key)).id if Path(key).is_file() else str(key)
    ring = ring.retired(named, now().replace(microsecond=0), revoked=revoked)
    ring.write(keys)
    return _listed(ring, keys)
