"""The revoke verb: a certificate goes onto the signed list of those that hold no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.certificates import Revocations, read_certificate, read_revocations
from palette.certificates.log import enter
from palette.certificates.revocations import FILE, write_revocations
from palette.signing import Purpose, read_key_ring, read_private
from palette.signing.instants import now, told


def revoke(
    certificate: Path | str,
    key: Path | str,
    reason: str,
    keys: Path | str = "keys.json",
    revoked: Path | str = FILE,
    log: Path | str | None = None,
) -> dict[str, Any]:
    """What was revoked, since when, and the number of the list that says so.

    ``certificate`` is an id, or the folder of an adapter; ``revoked`` is the list, which is made where there
    is none yet.

    Raises:
        OutputError: if a file cannot be read or written.
        SignatureError: if the id is none, no reason is given, or a key or the list does not hold.
    """
    ring, private = read_key_ring(Path(keys)), read_private(Path(key), Purpose.CERTIFY)
    path, at = Path(revoked), now().replace(microsecond=0)
    ring.trusted(private.public.id, Purpose.CERTIFY, at)
    folder = Path(certificate)
    known = read_certificate(folder, ring).id if folder.is_dir() else str(certificate)
    before = read_revocations(path, ring) if path.exists() else Revocations()
    after = before.revoked(known, at, reason)
    envelope = after.signed(private, at)
    if log is not None:
        enter(Path(log), [envelope], at)
    write_revocations(path, envelope)
    since, why = after.certificates[known]
    return {
        "certificate": known,
        "revoked": told(since),
        "reason": why,
        "list": str(path),
        "number": after.number,
        "revoked_in_all": len(after.certificates),
    }
