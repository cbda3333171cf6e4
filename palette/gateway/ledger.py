"""A hash chain of what happened: each entry holds the hash of the one before it, and signed heads its end.

An entry's hash is the SHA-256 of its one JSON text (RFC 8785), which holds its sequence number, the hash
before it, the instant and the event. Here is nothing of a database: entries are made, and what does not
hold of a chain is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from palette.errors import SignatureError, StoreError
from palette.fingerprints import canonical
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign, verified
from palette.signing.envelope import strict_json
from palette.signing.instants import instant, told

HEAD_FORMAT = "palette-ledger-head/1"
HEAD_TYPE = "application/vnd.palette.ledger-head+json"
NOTHING = "0" * 64
"""The hash before the first entry."""
GENESIS = "genesis"
"""The kind of the first entry, whose hash names the ledger."""
LONGEST, MOST = 200, 16
"""Characters of one text of an event at most, and names among its remarks or values of one of them."""
EXACT = 2**53 - 1
"""The greatest whole number that every reader of JSON reads as it was written."""
SECRET = re.compile(r"p[ko]_\w{4,}|eyJ[\w-]+\.[\w-]+\.?[\w.-]*|(?<=[Bb]earer )\S+", re.ASCII)
"""What looks like a key or a token; a client may send one where a name belongs."""
_KIND = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII)


@dataclass(frozen=True)
class Event:
    """What happened: a decision, a reply, a grant, a revocation, a start or a stop; never what was said.

    ``model`` is the name that was asked for, ``adapter`` and ``certificate`` digests of what answered,
    ``grants`` digests of their statements, ``prompt_hmac`` a keyed hash, ``remarks`` names of fields that
    were taken off and the like.
    """

    kind: str
    tenant: str | None = None
    credential: str | None = None
    model: str | None = None
    reason: str | None = None
    status: int | None = None
    adapter: str | None = None
    certificate: str | None = None
    grants: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_hmac: str | None = None
    request: str | None = None
    remarks: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event as its entry holds it: texts escaped and cut, secrets struck out, nothing of no value.

        Raises:
            StoreError: if its kind is no name, or a value is none that a ledger keeps.
        """
        if not _KIND.fullmatch(self.kind):
            raise StoreError("an event's kind must be small letters and '_'", got=ascii(self.kind)[:80])
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _kept(name, value) for name, value in values.items() if value not in (None, (), [], {})}


class Recorder(Protocol):
    """Keeps what happened."""

    def submit(self, event: Event) -> Future[str]:
        """The hash (hex) to come of the event's entry, which is durable then, whoever goes away meanwhile."""


def shown(text: str) -> str:
    """A text as it may be told: escaped, cut, and without what looks like a key or a token."""
    return SECRET.sub("...", text[: 4 * LONGEST]).encode("unicode_escape").decode()[:LONGEST]


def _kept(name: str, value: object) -> Any:
    """One value of an event as a ledger keeps it."""
    if isinstance(value, str):
        return shown(value)
    if value is None or (isinstance(value, int) and abs(value) <= EXACT):
        return value
    if isinstance(value, Mapping):
        return {_kept(name, str(key)): _kept(name, each) for key, each in list(value.items())[:MOST]}
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_kept(name, each) for each in ordered][: None if name == "grants" else MOST]
    raise StoreError("an event holds texts and whole numbers alone", got=f"{type(value).__name__} of {name}")


@dataclass(frozen=True)
class Entry:
    """An entry as it is kept: its number, its hash, and the text that was hashed."""

    sequence: int
    hash: str
    body: str

    @property
    def content(self) -> dict[str, Any]:
        """What the text says: ``sequence``, ``previous``, ``instant`` and ``event``."""
        found: dict[str, Any] = json.loads(self.body)
        return found


def hashed(body: str) -> str:
    """The hash (hex) of an entry's text."""
    return hashlib.sha256(body.encode(errors="surrogatepass")).hexdigest()


def entry(sequence: int, previous: str, at: datetime, event: Mapping[str, Any]) -> Entry:
    """The entry of an event, given as its JSON, behind the one of a hash."""
    content: dict[str, Any] = {
        "sequence": sequence,
        "previous": previous,
        "instant": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event": dict(event),
    }
    # Of ASCII texts and whole numbers, which are all that an event holds, this is RFC 8785's text.
    body = canonical(content)
    return Entry(sequence, hashed(body), body)


@dataclass(frozen=True)
class Head:
    """Where a ledger ended when a key said so; ``ledger`` is the hash of its first entry."""

    ledger: str
    sequence: int
    hash: str
    signed: datetime

    def envelope(self, key: PrivateKey) -> Envelope:
        """The head, signed.

        Raises:
            SignatureError: if the key is not one of ledgers.
        """
        if key.public.purpose is not Purpose.LEDGER:
            raise SignatureError(
                "a head must be signed by a key of ledgers", got=f"one to {key.public.purpose}"
            )
        content = {**asdict(self), "format": HEAD_FORMAT, "signed": told(self.signed)}
        return sign(HEAD_TYPE, json.dumps(content, sort_keys=True).encode(), [key])


def read_head(envelope: Envelope, ring: KeyRing) -> Head:
    """The head that a trusted key has signed.

    Raises:
        SignatureError: if the signature, the key or the statement does not hold.
    """
    content, _ = verified(envelope, ring, Purpose.LEDGER, HEAD_TYPE, ["signed"])
    try:
        if content["format"] != HEAD_FORMAT or type(content["sequence"]) is not int:
            raise ValueError(f"a format of {content['format']!r}")
        return Head(
            str(content["ledger"]), content["sequence"], str(content["hash"]), instant(content["signed"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            f"a head must be of the format {HEAD_FORMAT}", got=f"{type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class Fault:
    """What does not hold of a ledger, and at which entry."""

    sequence: int
    what: str


class Chain:
    """The check of a chain as its entries come by, in the order of their numbers, and of its heads."""

    def __init__(self, heads: Iterable[Head] = (), after: tuple[int, str] = (0, NOTHING)) -> None:
        """``after`` is the entry, by number and hash, behind which the chain is followed."""
        self.faults: list[Fault] = []
        self.entries, self.first = 0, NOTHING
        self._end, self.last = after
        self._heads: dict[int, list[Head]] = {}
        for head in heads:
            self._heads.setdefault(head.sequence, []).append(head)

    def follow(self, one: Entry) -> dict[str, Any]:
        """The event of the next entry, nothing if it cannot be read; what does not hold is a fault more."""
        gap = one.sequence != self._end + 1
        if gap:
            self._missing(one.sequence)
        content = self._read(one)
        if not gap and content and content.get("previous") != self.last:
            self._fault(one.sequence, f"does not follow entry {self._end}: one of the two was replaced")
        self.entries, self._end, self.last = self.entries + 1, one.sequence, one.hash
        self.first = one.hash if one.sequence == 1 else self.first
        for head in self._heads.pop(one.sequence, []):
            if head.hash != one.hash:
                self._fault(one.sequence, "is not what was signed: it, or one before it, was replaced")
            elif NOTHING != self.first != head.ledger:
                self._fault(1, "is not the first entry of the ledger that was signed")
        found = content.get("event")
        return found if isinstance(found, dict) else {}

    def close(self) -> list[Fault]:
        """All faults, once no entry is left."""
        # A head within a gap is told with the gap.
        if (signed := max(self._heads, default=0)) > self._end:
            self._fault(self._end + 1, f"missing: entries were signed up to {signed}, and the end is cut off")
        elif not self._end:
            self._fault(1, "missing: a ledger has its first entry from the beginning")
        self._heads.clear()
        return self.faults

    def _missing(self, found: int) -> None:
        first, last = self._end + 1, found - 1
        if last < first:
            self._fault(found, "is no number of an entry")
        else:
            self._fault(first, "missing" if first == last else f"missing, and all up to {last}")

    def _read(self, one: Entry) -> dict[str, Any]:
        if hashed(one.body) != one.hash:
            self._fault(one.sequence, "was edited: its text is not of its hash")
            return {}
        try:
            content = strict_json(one.body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self._fault(one.sequence, "is no entry")
            return {}
        if content.get("sequence") != one.sequence:
            self._fault(one.sequence, f"was moved: it was written as {ascii(content.get('sequence'))[:20]}")
        return content

    def _fault(self, sequence: int, what: str) -> None:
        self.faults.append(Fault(sequence, what))


def faults(entries: Iterable[Entry], heads: Sequence[Head] = ()) -> list[Fault]:
    """What does not hold of a chain: edits, deletions, reorderings, and what was cut off a signed end."""
    chain = Chain(heads)
    for one in entries:
        chain.follow(one)
    return chain.close()
