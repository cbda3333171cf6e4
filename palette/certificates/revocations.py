"""The list of revoked certificates, signed: by id, with when and why, and a number that only grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from palette.errors import SignatureError
from palette.files import write_text
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign, verified
from palette.signing.instants import instant, told

REVOCATIONS_FORMAT = "palette-revocations/1"
REVOCATIONS_TYPE = "application/vnd.palette.revocations+json"
FILE = "revoked.dsse.json"
LARGEST = 8 << 20
REASON = 500
"""Characters of a reason at most."""


@dataclass(frozen=True)
class Revocations:
    """Certificates that hold no more: since when and why, by id.

    ``number`` is that of the list; of two lists the one with the larger number is the later one, so that a
    reader who remembers it is not given an earlier list in place of a later one.
    """

    number: int = 0
    certificates: Mapping[str, tuple[datetime, str]] = field(default_factory=dict)

    @property
    def instants(self) -> dict[str, datetime]:
        """Since when each is revoked, as ``read_certificate`` takes it."""
        return {certificate: at for certificate, (at, _) in self.certificates.items()}

    def revoked(self, certificate: str, at: datetime, reason: str) -> Revocations:
        """The next list, with one more; the first instant of one that is on it stays.

        Raises:
            SignatureError: if the id is none, or no reason is given.
        """
        if len(certificate) != 64 or set(certificate) - set("0123456789abcdef"):
            law = "a certificate is revoked by its id, 64 hexadecimal digits"
            raise SignatureError(law, got=ascii(certificate)[:80], remedy="read it with palette verify")
        if not reason.strip() or len(reason) > REASON or not reason.isprintable():
            law = f"a revocation must have a reason of at most {REASON} characters that can be printed"
            raise SignatureError(law, got=ascii(reason)[:80])
        kept = self.certificates.get(certificate, (at, reason.strip()))
        return Revocations(self.number + 1, {**self.certificates, certificate: kept})

    def signed(self, key: PrivateKey, issued: datetime) -> Envelope:
        """The list in an envelope that a certifying key has signed."""
        rows = [
            {"certificate": certificate, "revoked": told(at), "reason": reason}
            for certificate, (at, reason) in sorted(self.certificates.items())
        ]
        content = {
            "format": REVOCATIONS_FORMAT,
            "issued": told(issued),
            "number": self.number,
            "revoked": rows,
        }
        return sign(REVOCATIONS_TYPE, json.dumps(content, sort_keys=True).encode(), [key])


def write_revocations(path: Path, envelope: Envelope) -> None:
    """Writes a signed list, atomically.

    Raises:
        OutputError: if the disk cannot take it.
    """
    write_text(path, f"{envelope.text}\n", "name another file with --revoked")


def read_revocations(path: Path | str, ring: KeyRing, least: int = 0) -> Revocations:
    """The list of a file, which a trusted certifying key has signed.

    ``least`` is the number of the latest list that is known: an earlier one is refused.

    Raises:
        SignatureError: if it is missing, does not hold, or is an earlier one.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as stream:
            envelope = Envelope.read(stream.read(LARGEST + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureError(
            "a list of revoked certificates must be readable",
            got=getattr(error, "strerror", None) or "no text",
            remedy="give the latest one",
            where=path,
        ) from error
    content, _ = verified(envelope, ring, Purpose.CERTIFY, REVOCATIONS_TYPE, ["issued"])
    try:
        found = _read(content)
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            f"a list of revoked certificates must be of the format {REVOCATIONS_FORMAT}",
            got=f"{type(error).__name__}: {error}",
            where=path,
        ) from error
    if found.number < least:
        raise SignatureError(
            "a list of revoked certificates must be the latest",
            got=f"number {found.number}, where {least} is known",
            remedy="give the latest one",
            where=path,
        )
    return found


def _read(content: Mapping[str, Any]) -> Revocations:
    number = content["number"]
    if content["format"] != REVOCATIONS_FORMAT or type(number) is not int or number < 0:
        raise ValueError(f"a format of {content['format']!r}, number {number!r}")
    rows = {row["certificate"]: (instant(row["revoked"]), str(row["reason"])) for row in content["revoked"]}
    if len(rows) != len(content["revoked"]):
        raise ValueError("a certificate that stands twice")
    return Revocations(number, rows)
