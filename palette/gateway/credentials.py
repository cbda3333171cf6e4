"""API keys: 256 random bits that are shown once, and what is kept of them under a pepper.

A key is ``pk_<id>_<secret>``. The store keeps the id, an HMAC of the secret, and an HMAC of all else that it
says of the key; whoever writes into the store without the pepper can neither make a key nor change one.
No slow hash: nothing is to be guessed of 256 random bits, and a slow one is a lever to stop the gateway.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from palette.errors import StoreError
from palette.files import OWNER_ONLY, require_owner_only, unwritable
from palette.fingerprints import canonical

PEPPER = "PALETTE_PEPPER_FILE"
"""The environment variable that names another file of the pepper than the one beside the store."""
BYTES = 32
_KEY = re.compile(r"pk_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_PEPPER = re.compile(r"[0-9a-f]{64}\n?", re.ASCII)


@dataclass(frozen=True)
class Pepper:
    """The secret of a store's machine, without which nothing of its keys can be told or made."""

    _raw: bytes = field(repr=False)

    def mac(self, *parts: object) -> str:
        """The HMAC-SHA256 (hex) of some values, the first of which says what they are for."""
        return hmac.digest(self._raw, canonical(parts).encode(), "sha256").hex()

    def is_mac(self, mac: str, *parts: object) -> bool:
        """Whether that is the HMAC of these values, in a time that does not say how near it came."""
        return hmac.compare_digest(mac.encode(), self.mac(*parts).encode())


def new_key() -> tuple[str, str]:
    """The id of a new key, and its text, which nobody can say again."""
    key_id = secrets.token_hex(8)
    return key_id, f"pk_{key_id}_{secrets.token_hex(BYTES)}"


def parsed(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text; None if it is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def pepper_path(store: Path | None, usual: Path) -> Path:
    """Where the pepper lies: as ``PALETTE_PEPPER_FILE`` says, beside the store, or in a folder."""
    if named := os.environ.get(PEPPER):
        return Path(named)
    return usual / "palette.pepper" if store is None else store.with_name(f"{store.name}.pepper")


def make_pepper(path: Path) -> Pepper:
    """A new pepper, in a file that its owner alone can read.

    Raises:
        StoreError: if there is one already.
        OutputError: if it cannot be written.
    """
    raw = secrets.token_bytes(BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(raw.hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise StoreError("a pepper is never written over", got="a file", where=path) from error
    except OSError as error:
        raise unwritable(path, error, f"name another file with {PEPPER}") from error
    return Pepper(raw)


def read_pepper(path: Path) -> Pepper:
    """The pepper of a file.

    Raises:
        StoreError: if it cannot be read, others can read it, or it is none.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii", errors="replace")
    except OSError as error:
        raise StoreError(
            "a store's pepper must be readable",
            got=error.strerror,
            remedy=f"put it back, or name its file with {PEPPER}",
            where=path,
        ) from error
    require_owner_only("a pepper", path, mode, StoreError)
    if not _PEPPER.fullmatch(text):
        raise StoreError(
            "a pepper must be 64 hexadecimal digits",
            got="another file",
            remedy=f"put it back, or name its file with {PEPPER}",
            where=path,
        )
    return Pepper(bytes.fromhex(text))
