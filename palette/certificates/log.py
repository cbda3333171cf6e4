"""A transparency log kept offline: what was ever signed, a line each, each with the digest of the one before.

It names statements by digest and says nothing of what they state, so that it can be shown to anybody. A key
that was stolen can sign what it likes and say that it did so last year; it cannot put the statement into a
copy of the log that somebody else has kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from palette.errors import SignatureError
from palette.files import unwritable
from palette.fingerprints import canonical
from palette.signing import Envelope
from palette.signing.envelope import strict_json
from palette.signing.instants import instant, told

LOG_FORMAT = "palette-log/1"
FIRST = "0" * 64
"""What the first entry says of the one before it."""


@dataclass(frozen=True)
class Entry:
    """One line: which statement of which kind was signed by which keys, and when it was entered."""

    number: int
    statement: str
    kind: str
    keys: tuple[str, ...]
    entered: str
    previous: str

    @property
    def line(self) -> str:
        """The line as it stands in the log, without its end."""
        return canonical({"format": LOG_FORMAT, **vars(self), "keys": list(self.keys)})

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of the line, which the next one names."""
        return hashlib.sha256(self.line.encode()).hexdigest()


def read_log(path: Path) -> list[Entry]:
    """The entries of a log, if each follows from the one before; none of a file that is not there yet.

    Raises:
        SignatureError: if one was changed, left out, put elsewhere or cut off.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureError("a log must be readable", got=type(error).__name__, where=path) from error
    if text and not text.endswith("\n"):
        raise SignatureError("a log must end with a whole line", got="one that is cut off", where=path)
    entries: list[Entry] = []
    previous = FIRST
    for number, line in enumerate(text.splitlines()):
        entry = _entry(line, number, path)
        if entry.number != number or entry.previous != previous or entry.line != line:
            raise SignatureError(
                "each line of a log must follow from the one before",
                got=f"another line {number + 1}",
                remedy="compare it with a copy that was kept elsewhere",
                where=path,
            )
        entries.append(entry)
        previous = entry.digest
    return entries


def _entry(line: str, number: int, where: Path) -> Entry:
    try:
        held: dict[str, Any] = strict_json(line)
        if held.pop("format") != LOG_FORMAT:
            raise ValueError("another format")
        instant(held["entered"])
        return Entry(**{**held, "keys": tuple(held["keys"])})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SignatureError(
            f"a log must be of the format {LOG_FORMAT}",
            got=f"line {number + 1}: {type(error).__name__}",
            where=where,
        ) from error


def enter(path: Path, envelopes: Sequence[Envelope], at: datetime) -> list[Entry]:
    """The entries that were appended for some statements; the disk has them when it returns.

    Raises:
        SignatureError: if the log that is there does not hold.
        OutputError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            # Two at once would both follow the same line. The lock goes with the open file.
            flock(stream, LOCK_EX)
            fresh = _following(read_log(path), envelopes, told(at))
            stream.write("".join(f"{entry.line}\n" for entry in fresh).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise unwritable(path, error, "name another file with --log") from error
    return fresh


def _following(known: Sequence[Entry], envelopes: Sequence[Envelope], at: str) -> list[Entry]:
    """The entries of some statements, each behind the one before."""
    fresh: list[Entry] = []
    previous = known[-1].digest if known else FIRST
    for number, envelope in enumerate(envelopes, len(known)):
        keys = tuple(key for key, _ in envelope.signatures)
        fresh.append(Entry(number, envelope.digest, kind_of(envelope), keys, at, previous))
        previous = fresh[-1].digest
    return fresh


def kind_of(envelope: Envelope) -> str:
    """What an envelope holds: the type of its predicate, or else of its payload."""
    try:
        return str(json.loads(envelope.payload)["predicateType"])
    except (KeyError, TypeError, ValueError):
        return envelope.payload_type


def require_entered(path: Path, envelopes: Sequence[Envelope]) -> None:
    """Returns nothing: every statement stands in a log.

    Raises:
        SignatureError: if one does not, or the log does not hold.
    """
    known = {entry.statement for entry in read_log(path)}
    for envelope in envelopes:
        if envelope.digest not in known:
            raise SignatureError(
                "every statement of a certificate must stand in the log",
                got=f"none of {envelope.digest[:12]}",
                remedy="do not believe it before its signer explains",
                where=path,
            )
