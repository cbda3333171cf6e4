"""The audit: what was done to the store by hand is found by its ledger, and what to that by its heads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from palette.errors import SignatureError, StoreError
from palette.gateway import auditing
from palette.gateway.auditing import audit, differences, export, head, recent
from palette.gateway.ledger import Event
from palette.gateway.operations import Operator
from palette.gateway.recording import Heads
from palette.gateway.store import Store
from palette.gateway.tables import ENTRIES, GRANTS, HEADS, KEYS, REVOCATIONS, TENANTS
from tests.gateway.signers import BEGIN, Opens, Signers

GRANT = "0" * 32


def filled(store: Store, signers: Signers) -> Store:
    """A store in which all that can be done was done, and its ledger signed."""
    operator = Operator(store, "Olga", lambda: BEGIN)
    operator.add_tenant("hospital", "St. Ann")
    operator.add_tenant("bank")
    operator.add_tenant("school")
    operator.add_grant(signers.grant("hospital", "medical"))
    gone = operator.add_grant(signers.grant("hospital", "legal"))
    key, _ = operator.add_key("hospital")
    operator.add_key("bank", ["finance"])
    operator.revoke("grant", gone.id, "over")
    operator.revoke("key", key.id, "lost")
    operator.revoke("certificate", "c" * 64, "withdrawn")
    operator.suspend("bank", "audit")
    operator.suspend("school", "audit")
    operator.resume("school", "audit passed")
    with store.writer(Heads(signers.ledger)) as writer:
        # What is said of a revocation is none.
        writer.append(Event("decision", "hospital", model='x","kind":"revocation","y":"'))
    return store


@pytest.fixture
def busy(store: Store, signers: Signers) -> Store:
    return filled(store, signers)


def revoked(kind: str) -> Any:
    return REVOCATIONS.c.kind == kind


BANK, SCHOOL = TENANTS.c.id == "bank", TENANTS.c.id == "school"
TAMPERINGS: dict[str, tuple[Any, str]] = {
    "unrevoked": (delete(REVOCATIONS).where(revoked("certificate")), "the revocation of the certificate"),
    "unrevoked key": (delete(REVOCATIONS).where(revoked("key")), "the revocation of the key"),
    "moved revocation": (
        update(REVOCATIONS).where(revoked("grant")).values(subject=GRANT),
        "the revocation of the grant",
    ),
    "resumed": (update(TENANTS).where(BANK).values(suspended=None), "the suspension of the tenant bank"),
    "suspended": (
        update(TENANTS).where(SCHOOL).values(suspended="2026-01-01T00:00:00Z"),
        "the suspension of the tenant school is in the store without an entry",
    ),
    "no grants": (delete(GRANTS), "its row was taken away"),
    "no keys": (delete(KEYS), "its row was taken away"),
    "tenant": (
        insert(TENANTS).values(id="mallory", name="M", created="2026-01-01T00:00:00Z"),
        "the tenant mallory is in the store without an entry: its row was put there",
    ),
    "revocation": (
        insert(REVOCATIONS).values(kind="key", subject="x", revoked="", who="", reason=""),
        "the revocation of the key x is in the store without an entry",
    ),
    "key sealed anew": (update(KEYS).values(seal="0" * 64), "is not the one that entry"),
    "domains changed": (update(KEYS).values(domains='["legal"]'), "whose row was changed"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_done_to_the_store_by_hand_is_found(busy: Store, name: str) -> None:
    assert audit(busy)["holds"]
    assert differences(busy) == []
    statement, said = TAMPERINGS[name]
    with busy.database.writing() as connection:
        connection.execute(statement)
    found = audit(busy)
    assert not found["holds"]
    assert found["faults"] == []
    assert any(said in each for each in found["differences"]), found["differences"]
    if name != "domains changed":
        assert any(said in each for each in differences(busy))


def test_an_audit_of_a_store_on_a_server(opens: Opens, postgres_url: str, signers: Signers) -> None:
    store = filled(opens(postgres_url), signers)
    assert audit(store)["holds"]
    assert [each["event"]["kind"] for each in recent(store, 9, ["grant"])] == ["grant", "grant"]
    with store.database.writing() as connection:
        connection.execute(TAMPERINGS["unrevoked"][0])
        connection.execute(delete(ENTRIES).where(ENTRIES.c.sequence == 3))
    found = audit(store)
    assert [(each["sequence"], each["what"]) for each in found["faults"]] == [(3, "missing")]
    assert any(TAMPERINGS["unrevoked"][1] in each for each in found["differences"])


def test_an_audit_that_does_not_compare_finds_none_of_it(
    busy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "_compared", lambda *_: [])
    with busy.database.writing() as connection:
        connection.execute(TAMPERINGS["unrevoked"][0])
    assert audit(busy)["holds"]


def test_taking_the_entry_away_too_is_found(busy: Store) -> None:
    with busy.database.writing() as connection:
        connection.execute(TAMPERINGS["unrevoked"][0])
        connection.execute(delete(ENTRIES).where(ENTRIES.c.body.contains('"what":"certificate"')))
    found = audit(busy)
    assert [each["what"] for each in found["faults"]] == ["missing"]
    assert found["differences"] == []


def test_what_was_cut_off_is_found_by_a_head_that_was_kept_elsewhere(
    busy: Store, signers: Signers, tmp_path: Path
) -> None:
    _, envelope = head(busy, signers.ledger, BEGIN)
    assert envelope is not None
    file = tmp_path / "head.json"
    file.write_text(envelope.text)
    with busy.database.writing() as connection:
        connection.execute(delete(ENTRIES).where(ENTRIES.c.sequence > 14))
    assert audit(busy)["faults"][0]["sequence"] == 15
    with busy.database.writing() as connection:
        connection.execute(delete(HEADS))
    assert audit(busy)["holds"]
    found = audit(busy, [file])
    assert found["faults"] == [
        {"sequence": 15, "what": "missing: entries were signed up to 15, and the end is cut off"}
    ]


def test_an_older_copy_of_the_store_is_no_way_back(
    opens: Opens, url: str, signers: Signers, tmp_path: Path
) -> None:
    heads = Heads(signers.ledger, tmp_path / "head.json")
    store = opens(url)
    operator = Operator(store, "Olga", lambda: BEGIN)
    operator.add_tenant("hospital")
    key, text = operator.add_key("hospital")
    before = list(export(store))
    copy = tmp_path / "copy.db"
    with store.database.reading() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("VACUUM INTO ?", (str(copy),))
        connection.exec_driver_sql("BEGIN")
    operator.revoke("key", key.id, "lost")
    with store.writer(heads) as writer:
        writer.append(Event("start"))
    with Store(str(copy), signers.ring, pepper=tmp_path / "pepper") as older:
        known = older.known(text)
        assert known is not None
        assert known[1][0].revoked is None
        assert list(export(older)) == before
        with pytest.raises(StoreError, match=f"entry {len(before) + 2} is missing"):
            older.writer(heads)
        found = audit(older, [tmp_path / "head.json"])
        assert found["faults"][0]["sequence"] == len(before) + 1


def test_a_head_of_another_ledger_is_no_head_of_this_one(
    busy: Store, signers: Signers, tmp_path: Path
) -> None:
    file = tmp_path / "head.json"
    with Store(str(tmp_path / "other.db"), signers.ring, pepper=tmp_path / "p", create=True) as other:
        _, envelope = head(other, signers.ledger, BEGIN)
    assert envelope is not None
    file.write_text(envelope.text)
    assert audit(busy, [file])["faults"][0]["sequence"] == 1


def test_heads_that_do_not_hold_are_faults(busy: Store, signers: Signers, tmp_path: Path) -> None:
    with busy.database.writing() as connection:
        connection.execute(update(HEADS).values(envelope="{}"))
    assert "has a head that does not hold" in audit(busy)["faults"][0]["what"]
    with pytest.raises(StoreError, match="a signed head must be a readable file"):
        audit(busy, [tmp_path / "none"])
    (tmp_path / "head").write_text("{}")
    with pytest.raises(SignatureError):
        audit(busy, [tmp_path / "head"])


def test_the_end_is_told_without_a_key_and_signed_twice_as_once(busy: Store, signers: Signers) -> None:
    unsigned, envelope = head(busy, None, BEGIN)
    assert envelope is None
    assert unsigned["sequence"] == 15
    first, second = (head(busy, signers.ledger, BEGIN)[0] for _ in range(2))
    assert first == second
    assert first["hash"] == unsigned["hash"]
    with pytest.raises(SignatureError, match="key of ledgers"):
        head(busy, signers.authorise, BEGIN)


def test_what_is_exported_is_what_was_hashed(busy: Store) -> None:
    lines = list(export(busy))
    with busy.database.reading() as connection:
        assert lines == [
            row.body for row in connection.execute(ENTRIES.select().order_by(ENTRIES.c.sequence))
        ]
    assert [json.loads(line)["sequence"] for line in export(busy, 12)] == [13, 14, 15]
    assert list(export(busy, 99)) == []


def test_an_export_is_checked_by_hand_as_the_page_says(busy: Store) -> None:
    lines = list(export(busy))
    hashes = [hashlib.sha256(line.encode()).hexdigest() for line in lines]
    assert [json.loads(line)["previous"] for line in lines[1:]] == hashes[:-1]
    assert audit(busy)["last"] == hashes[-1]


def test_the_last_entries_by_their_kinds(busy: Store) -> None:
    found = recent(busy, 2, ["revocation", "suspension"])
    assert [each["event"]["kind"] for each in found] == ["suspension", "suspension"]
    # Of what was revoked it is said that it was a key.
    assert [each["event"]["kind"] for each in recent(busy, 9, ["key"])] == ["key", "key"]
    (decision,) = recent(busy, 9, ["decision"])
    assert decision["event"]["tenant"] == "hospital"
    assert len(decision["hash"]) == 64
    assert len(recent(busy, 3)) == 3


def test_a_ledger_of_more_than_a_block_is_read_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from palette.gateway import entries

    monkeypatch.setattr(entries, "BLOCK", 3)
    with store.writer() as writer:
        for _ in range(10):
            writer.append(Event("decision"))
    assert audit(store)["entries"] == len(list(export(store))) == 11


def test_entries_of_strange_types_are_faults_not_errors(store: Store) -> None:
    values: list[Callable[[], Any]] = [lambda: 7, lambda: b"\xff\xfe", lambda: 1.5]
    for number, value in enumerate(values, 2):
        with store.database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO ledger_entries VALUES (?, ?, ?)", (number, "", value()))
    assert [each["sequence"] for each in audit(store)["faults"]] == [2, 3, 4]
