"""The chain alone: whatever is done to it is found, and named by the number of an entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import SignatureError, StoreError
from palette.fingerprints import canonical
from palette.gateway.ledger import (
    LONGEST,
    MOST,
    NOTHING,
    Chain,
    Entry,
    Event,
    Head,
    entry,
    faults,
    hashed,
    read_head,
)
from palette.signing import Envelope, KeyRing, sign

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
SECRET = "pk_0123456789abcdef_" + "a5" * 32


def chain(count: int, salt: str = "") -> list[Entry]:
    made: list[Entry] = []
    for number in range(1, count + 1):
        event = Event("decision", tenant="hospital", request=f"{salt}{number}").to_json()
        made.append(entry(number, made[-1].hash if made else NOTHING, AT, event))
    return made


@given(
    st.text(), st.dictionaries(st.text(), st.integers(-(2**53) + 1, 2**53 - 1) | st.text() | st.booleans())
)
def test_an_entrys_text_is_the_canonical_one_of_rfc_8785(text, remarks):
    event = Event("decision", tenant=text, status=200, grants=(text,), remarks=remarks).to_json()
    made = entry(1, NOTHING, AT, event)
    assert made.body.encode() == rfc8785.dumps(made.content)


def head(entries: list[Entry], at: int | None = None) -> Head:
    last = entries[(at or len(entries)) - 1]
    return Head(entries[0].hash, last.sequence, last.hash, AT.replace(microsecond=0))


def rewritten(one: Entry) -> Entry:
    """The entry as who knows how entries are made writes it otherwise."""
    body = one.body.replace("hospital", "hospitaL")
    return Entry(one.sequence, hashed(body), body)


def edited(entries: list[Entry], at: int) -> list[Entry]:
    body = entries[at].body.replace("hospital", "hospitaL")
    return [*entries[:at], replace(entries[at], body=body), *entries[at + 1 :]]


def edited_and_hashed(entries: list[Entry], at: int) -> list[Entry]:
    return [*entries[:at], rewritten(entries[at]), *entries[at + 1 :]]


def edited_and_chained(entries: list[Entry], at: int) -> list[Entry]:
    made = [*entries[:at], rewritten(entries[at])]
    for one in entries[at + 1 :]:
        made.append(entry(one.sequence, made[-1].hash, AT, one.content["event"]))
    return made


def deleted(entries: list[Entry], at: int) -> list[Entry]:
    return [*entries[:at], *entries[at + 1 :]]


def swapped(entries: list[Entry], at: int) -> list[Entry]:
    other = at - 1 if at else 1
    made = list(entries)
    made[at], made[other] = (
        replace(entries[other], sequence=entries[at].sequence),
        replace(entries[at], sequence=entries[other].sequence),
    )
    return made


def cut(entries: list[Entry], at: int) -> list[Entry]:
    return entries[:at]


def of_another_ledger(entries: list[Entry], at: int) -> list[Entry]:
    return chain(len(entries), "other")


TAMPERINGS = (edited, edited_and_hashed, edited_and_chained, deleted, swapped, cut, of_another_ledger)
Check = Callable[[list[Entry], list[Head]], list[Any]]


@given(st.integers(2, 12), st.data())
def test_whatever_is_done_to_a_signed_chain_is_found_at_its_number(count: int, data: Any) -> None:
    entries = chain(count)
    assert faults(entries, [head(entries)]) == []
    tampering = data.draw(st.sampled_from(TAMPERINGS))
    at = data.draw(st.integers(0, count - 1))
    found = faults(tampering(entries, at), [head(entries)])
    assert found
    # Where the new text was chained anew, the signed head is what says so.
    late = tampering in (edited_and_chained, of_another_ledger)
    near = {count} if late else {at, at + 1, at + 2}
    assert {each.sequence for each in found} & near, (tampering.__name__, at, found)


def test_what_is_said_names_the_number() -> None:
    entries = chain(5)
    said = {
        tampering.__name__: [
            (each.sequence, each.what) for each in faults(tampering(entries, 2), [head(entries)])
        ]
        for tampering in TAMPERINGS
    }
    assert said["edited"] == [(3, "was edited: its text is not of its hash")]
    assert said["edited_and_hashed"] == [(4, "does not follow entry 3: one of the two was replaced")]
    assert said["deleted"] == [(3, "missing")]
    assert said["cut"] == [(3, "missing: entries were signed up to 5, and the end is cut off")]
    assert said["edited_and_chained"] == [(5, "is not what was signed: it, or one before it, was replaced")]
    assert (2, "was moved: it was written as 3") in said["swapped"]
    assert faults(entries[3:], [head(entries)])[0].what == "missing, and all up to 3"
    assert faults([], [])[0].sequence == 1


def test_a_head_of_the_middle_finds_what_was_chained_anew_before_it() -> None:
    entries = chain(6)
    assert faults(edited_and_chained(entries, 1), [head(entries, 4)])[0].sequence == 4
    # And nothing signed says anything of what came after: that is what no ledger can show.
    assert faults(edited_and_chained(entries, 4), [head(entries, 4)]) == []
    assert faults(entries[:4], [head(entries, 4)]) == []


class Unhashed(Chain):
    """Believes texts."""

    def _read(self, one: Entry) -> dict[str, Any]:
        content = one.content
        if content["sequence"] != one.sequence:
            self._fault(one.sequence, "was moved")
        return content


class Unlinked(Chain):
    """Believes that each entry follows the one before it."""

    def _read(self, one: Entry) -> dict[str, Any]:
        return {**super()._read(one), "previous": self.last}


class Uncounted(Chain):
    """Believes that nothing is missing."""

    def _missing(self, found: int) -> None:
        pass


class Headless(Chain):
    """Believes the end."""

    def __init__(self, heads: object = ()) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("broken", "missed"),
    [
        (Unhashed, edited),
        (Unlinked, edited_and_hashed),
        (Uncounted, deleted),
        (Headless, cut),
        (Headless, edited_and_chained),
        (Headless, of_another_ledger),
    ],
)
def test_a_check_that_leaves_one_thing_out_misses_what_that_is_for(
    broken: type[Chain], missed: Callable[[list[Entry], int], list[Entry]]
) -> None:
    entries = chain(5)
    for kind, found in ((Chain, True), (broken, False)):
        check = kind([head(entries)])
        for one in missed(entries, 2):
            check.follow(one)
        assert bool(check.close()) is found


def test_texts_that_are_no_entry_are_faults_not_errors() -> None:
    for body in ("", "[]", "null", '{"sequence":1,"sequence":1}', "\ud800", "[" * 100_000, '{"event":3}'):
        made = Entry(1, hashed(body) if body != "\ud800" else NOTHING, body)
        assert faults([made]), body
    assert faults([Entry(0, NOTHING, ""), *chain(2)])[0].what == "is no number of an entry"


@given(
    st.dictionaries(st.text(max_size=9), st.integers() | st.text() | st.booleans() | st.none(), max_size=30)
)
def test_an_entry_is_one_text_that_other_readers_read_alike(remarks: dict[str, Any]) -> None:
    try:
        made = entry(1, NOTHING, AT, Event("decision", remarks=remarks).to_json())
    except StoreError:
        assert any(isinstance(each, int) and abs(each) > 2**53 - 1 for each in remarks.values())
        return
    assert made.body == canonical(json.loads(made.body))
    assert made.body.isascii()
    assert faults([made]) == []


def test_an_event_keeps_no_secret_and_no_long_text() -> None:
    token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln"
    event = Event(
        "decision",
        model=f"medical {SECRET} \x00\n\u202e",
        reason=f"Bearer {SECRET[3:]}",
        request=token,
        remarks={"stripped": [SECRET, "ok", "x" * 999], **{f"n{i}": 1 for i in range(50)}},
    )
    text = json.dumps(event.to_json())
    assert "a5a5" not in text
    assert "c2ln" not in text
    assert "\\\\x00\\\\n\\\\u202e" in text
    assert len(event.to_json()["remarks"]) == MOST
    assert max(map(len, event.to_json()["remarks"]["stripped"])) == LONGEST
    many = tuple(f"{number:064x}" for number in range(40))
    assert Event("decision", grants=many).to_json()["grants"] == list(many)


@pytest.mark.parametrize(
    "event", [Event("Decision"), Event("a b"), Event(""), Event("ok", remarks={"x": 1.5})]
)
def test_what_is_no_event_is_refused(event: Event) -> None:
    with pytest.raises(StoreError):
        event.to_json()


def test_a_head_is_signed_by_a_key_of_ledgers_alone(signers: Any) -> None:
    made = head(chain(3))
    envelope = made.envelope(signers.ledger)
    assert read_head(Envelope.read(envelope.text), signers.ring) == made
    with pytest.raises(SignatureError, match="key of ledgers"):
        made.envelope(signers.authorise)
    with pytest.raises(SignatureError, match="trusted key"):
        read_head(envelope, KeyRing({}))
    forged = sign(envelope.payload_type, envelope.payload, [signers.authorise])
    with pytest.raises(SignatureError, match="a key to ledger"):
        read_head(forged, signers.ring)
    bent = replace(envelope, payload=envelope.payload.replace(b'"sequence": 3', b'"sequence": 2'))
    with pytest.raises(SignatureError, match="must be of what it stands below"):
        read_head(bent, signers.ring)
    other = json.loads(envelope.payload) | {"format": "palette-ledger-head/2"}
    with pytest.raises(SignatureError, match="of the format"):
        read_head(sign(envelope.payload_type, json.dumps(other).encode(), [signers.ledger]), signers.ring)
