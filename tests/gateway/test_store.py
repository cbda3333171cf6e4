"""The authority: what is signed or sealed is believed; a revocation holds at the next call everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from palette.authorisation import Credential, Reason, Request, Tenant, decide
from palette.errors import AuthorisationError, SignatureError, StoreError
from palette.gateway.credentials import new_key
from palette.gateway.database import data_folder, store_url
from palette.gateway.identity import Authority
from palette.gateway.ledger import Event, Recorder
from palette.gateway.operations import Operator
from palette.gateway.store import Store
from palette.gateway.tables import GRANTS, KEYS, REVOCATIONS
from tests.gateway.signers import BEGIN, Opens, Signers

LATER = BEGIN + timedelta(days=30)


@pytest.fixture
def any_operator(any_store: Store) -> Operator:
    return Operator(any_store, "Olga", lambda: BEGIN)


@pytest.fixture
def hospital(operator: Operator, signers: Signers) -> tuple[Store, str]:
    """A store with a tenant that has a grant and a key, and the key's text."""
    operator.add_tenant("hospital", "St. Ann")
    operator.add_grant(signers.grant("hospital", "medical", "legal"))
    return operator.store, operator.add_key("hospital")[1]


def test_a_key_is_known_with_its_parents(any_operator: Operator, any_store: Store, signers: Signers) -> None:
    any_operator.add_tenant("hospital", "St. Ann")
    parent, parent_text = any_operator.add_key("hospital", ["medical", "legal"], LATER)
    child, child_text = any_operator.add_key("hospital", ["medical"], None, parent.id)
    tenant = Tenant("hospital", "St. Ann")
    assert any_store.known(parent_text) == (tenant, (parent,))
    assert any_store.known(child_text) == (tenant, (child, parent))
    assert child == Credential(child.id, "hospital", frozenset({"medical"}), LATER)
    any_operator.add_grant(signers.grant("hospital", "medical"))
    (found,) = any_store.grants("hospital")
    assert (found.issuer, found.revoked) == (signers.authorise.public.id, None)
    assert found.domains == {"medical"}
    assert any_store.tenant("hospital") == tenant
    assert any_store.tenants() == [tenant]
    assert any_store.tenant("another") is None
    assert any_store.grants("another") == []


def test_it_is_what_a_gateway_asks(store: Store) -> None:
    authority: Authority = store
    with store.writer() as writer:
        recorder: Recorder = writer
        assert recorder.append(Event("start"))
    assert authority.revoked_certificates() == {}


def test_other_texts_are_not_known(hospital: tuple[Store, str]) -> None:
    store, text = hospital
    key_id = text.split("_")[1]
    other = new_key()[1]
    for wrong in ("", text[:-1], text.upper(), other, f"pk_{key_id}_{other.split('_')[2]}", "x" * 100_000):
        assert store.known(wrong) is None
    assert store.known(text) is not None


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "Hospital", "../hospital", "x" * 100_000, "a'; --"])
def test_what_can_name_no_tenant_names_none(any_store: Store, name: str) -> None:
    assert any_store.tenant(name) is None
    assert any_store.grants(name) == []
    operator = Operator(any_store, "Olga", lambda: BEGIN)
    for deed in (
        lambda: operator.add_key(name),
        lambda: operator.revoke("key", name, "lost"),
        lambda: operator.suspend(name, "audit"),
    ):
        with pytest.raises(AuthorisationError, match="must be named by small letters"):
            deed()


def write(store: Store, statement: Any) -> None:
    with store.database.writing() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "bank"},
        {"domains": '["medical", "weapons"]'},
        {"domains": None},
        {"expires": None},
        {"created": "2020-01-01T00:00:00Z"},
        {"parent": None},
        {"mac": "0" * 64},
        {"seal": "0" * 64},
        {"seal": b"\xff"},
    ],
    ids=str,
)
def test_a_key_whose_row_was_changed_is_none(
    store: Store, operator: Operator, change: dict[str, Any]
) -> None:
    operator.add_tenant("hospital")
    operator.add_tenant("bank")
    parent, _ = operator.add_key("hospital", ["medical"], LATER)
    child, text = operator.add_key("hospital", ["medical"], LATER, parent.id)
    _, below = operator.add_key("hospital", ["medical"], LATER, child.id)
    assert store.known(text) is not None
    write(store, update(KEYS).where(KEYS.c.id == child.id).values(**change))
    assert store.known(text) is None
    assert store.known(below) is None
    assert [each.id for each in store.credentials() if each.id == child.id] == []
    if "mac" not in change:
        assert "changed" in store.faults[f"key {child.id}"]


def test_without_the_pepper_nobody_makes_a_key(store: Store, operator: Operator) -> None:
    operator.add_tenant("hospital")
    _, text = operator.add_key("hospital")
    with store.database.reading() as connection:
        row = dict(connection.execute(select(KEYS)).one()._mapping)
    write(store, insert(KEYS).values({**row, "id": "f" * 16}))
    assert store.known(f"pk_{'f' * 16}_{text.split('_')[2]}") is None


def test_a_line_of_parents_that_never_ends_is_none(store: Store, operator: Operator) -> None:
    operator.add_tenant("hospital")
    key, text = operator.add_key("hospital")
    seal = store.pepper.mac
    with store.database.reading() as connection:
        row = dict(connection.execute(select(KEYS)).one()._mapping)
    # Even by a hand that has the pepper.
    from palette.gateway.store import sealed

    row["parent"] = key.id
    write(store, update(KEYS).values(parent=key.id, seal=seal("seal", *sealed(row))))
    assert store.known(text) is None


REVOKES: dict[str, Callable[[Operator, str, str], object]] = {
    "key": lambda operator, key, grant: operator.revoke("key", key, "lost"),
    "grant": lambda operator, key, grant: operator.revoke("grant", grant, "over"),
    "suspension": lambda operator, key, grant: operator.suspend("hospital", "audit"),
}
WHY = {
    "key": Reason.REVOKED_CREDENTIAL,
    "grant": Reason.NO_GRANT,
    "suspension": Reason.SUSPENDED,
}


def decided(store: Store, text: str) -> Reason:
    """Why a key is answered nothing; for want of an adapter, if all else is in order."""
    known = store.known(text)
    tenant, credentials = known or (None, ())
    request = Request("legal+medical", credentials, "b" * 64)
    return decide(tenant, request, store.grants("hospital"), [], LATER).reason


class Remembering(Store):
    """Knows for a while whom it knew."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._before: dict[Any, Any] = {}

    def known(self, secret: str) -> Any:
        return self._before.setdefault(secret, super().known(secret))

    def grants(self, tenant_id: str | None = None) -> Any:
        return self._before.setdefault(("grants", tenant_id), super().grants(tenant_id))


@pytest.mark.parametrize("kind", REVOKES)
@pytest.mark.parametrize(("opened", "holds"), [(Store, True), (Remembering, False)])
def test_what_is_revoked_is_so_at_the_next_call_of_every_process(
    any_store: Store,
    any_url: str,
    signers: Signers,
    tmp_path: Path,
    kind: str,
    opened: type[Store],
    holds: bool,
) -> None:
    operator = Operator(any_store, "Olga", lambda: BEGIN)
    operator.add_tenant("hospital")
    grant = operator.add_grant(signers.grant("hospital", "medical", "legal"))
    key, text = operator.add_key("hospital")
    with opened(any_url, signers.ring, pepper=tmp_path / "pepper") as gateway:
        assert decided(gateway, text) is Reason.NO_CERTIFICATE
        REVOKES[kind](operator, key.id, grant.id)
        assert (decided(gateway, text) is WHY[kind]) is holds


def test_another_process_revokes(hospital: tuple[Store, str], url: str, tmp_path: Path) -> None:
    store, text = hospital
    program = (
        "import sys; from pathlib import Path; from palette.signing import KeyRing;"
        "from palette.gateway.store import Store; from palette.gateway.operations import Operator;"
        "Operator(Store(sys.argv[1], KeyRing({}), pepper=Path(sys.argv[2])), 'Olga')"
        ".revoke('key', sys.argv[3], 'lost')"
    )
    arguments = [url, str(tmp_path / "pepper"), text.split("_")[1]]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    known = store.known(text)
    assert known is not None
    assert known[1][0].revoked is not None


def test_a_revocation_whose_instant_was_spoiled_is_one(
    hospital: tuple[Store, str], operator: Operator
) -> None:
    store, text = hospital
    operator.revoke("key", text.split("_")[1], "lost")
    write(store, update(REVOCATIONS).values(revoked="never"))
    assert decided(store, text) is Reason.REVOKED_CREDENTIAL


def test_certificates_are_revoked_by_their_id(store: Store, operator: Operator) -> None:
    operator.revoke("certificate", "c" * 64, "withdrawn")
    assert store.revoked_certificates() == {"c" * 64: BEGIN}


def moved(store: Store, signers: Signers) -> None:
    write(store, update(GRANTS).values(tenant="bank"))


def renamed(store: Store, signers: Signers) -> None:
    write(store, update(GRANTS).values(id="0" * 32))


def bent(store: Store, signers: Signers) -> None:
    envelope = signers.grant("hospital", "medical")
    other = replace(envelope, payload=envelope.payload.replace(b"2026", b"2126"))
    write(store, update(GRANTS).values(envelope=other.text))


def forged(store: Store, signers: Signers) -> None:
    envelope = signers.grant("hospital", "medical", key=signers.stranger)
    write(store, update(GRANTS).values(envelope=envelope.text))


def spoiled(store: Store, signers: Signers) -> None:
    write(store, update(GRANTS).values(envelope="{}"))


@pytest.mark.parametrize("change", [moved, renamed, bent, forged, spoiled])
def test_a_grant_whose_row_was_changed_opens_nothing_and_is_reported(
    store: Store,
    operator: Operator,
    signers: Signers,
    change: Callable[[Store, Signers], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    operator.add_tenant("hospital")
    operator.add_tenant("bank")
    operator.add_grant(signers.grant("hospital", "medical"))
    assert len(store.grants("hospital")) == 1
    change(store, signers)
    assert store.grants("hospital") == store.grants("bank") == []
    assert store.faults
    assert caplog.text.count("opens nothing") == 1


def test_a_grant_holds_no_longer_than_the_trust_in_its_key(store: Store, signers: Signers) -> None:
    operator = Operator(store, "Olga", lambda: BEGIN)
    operator.add_tenant("hospital")
    operator.add_grant(signers.grant("hospital", "medical"))
    assert len(store.grants("hospital")) == 1
    store.trust(signers.ring.retired(signers.authorise.public.id, LATER, revoked=True))
    assert store.grants("hospital") == []


def test_a_revoked_grant_is_not_there_beside_itself_again(
    store: Store, operator: Operator, signers: Signers
) -> None:
    operator.add_tenant("hospital")
    envelope = signers.grant("hospital", "medical")
    grant = operator.add_grant(envelope)
    operator.revoke("grant", grant.id, "over")
    for row in ({"id": "1" * 32, "digest": "1" * 64}, {"id": "2" * 32, "digest": grant.digest[:-1] + "x"}):
        write(store, insert(GRANTS).values({"tenant": "hospital", "envelope": envelope.text, **row}))
    assert [each.revoked for each in store.grants("hospital")] == [BEGIN]


def test_a_store_has_one_pepper(opens: Opens, url: str, signers: Signers, tmp_path: Path) -> None:
    opens(url)
    opens(url)
    other = tmp_path / "other"
    other.write_text("0" * 64)
    other.chmod(0o600)
    with pytest.raises(
        StoreError, match="must be the one that it was made with, got another one; put it back"
    ):
        Store(url, signers.ring, pepper=other)
    with pytest.raises(StoreError, match="pepper must be readable"):
        Store(url, signers.ring, pepper=tmp_path / "none", create=True)
    (tmp_path / "pepper").chmod(0o644)
    with pytest.raises(StoreError, match="by its owner alone"):
        Store(url, signers.ring, pepper=tmp_path / "pepper")


def test_a_store_that_was_half_made_is_made_whole(url: str, signers: Signers, tmp_path: Path) -> None:
    from palette.gateway.database import Database

    Database(url, create=True).close()
    with pytest.raises(StoreError):
        Store(url, signers.ring, pepper=tmp_path / "pepper")
    Store(url, signers.ring, pepper=tmp_path / "pepper", create=True).close()
    Store(url, signers.ring, pepper=tmp_path / "pepper").close()


def test_a_head_that_nobody_trusts_begins_no_writer(store: Store, signers: Signers, tmp_path: Path) -> None:
    from palette.gateway.recording import Heads

    file = tmp_path / "head.json"
    file.write_text("{}")
    with pytest.raises(SignatureError, match="DSSE envelope"):
        store.writer(Heads(signers.ledger, file))


def test_prompts_are_hashed_under_the_pepper(store: Store) -> None:
    assert store.keyed("a") == store.keyed("a") != store.keyed("b")
    assert len(store.keyed("a")) == 64


def test_where_a_store_is_usually(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PALETTE_STORE", "PALETTE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store_url() == str(tmp_path / "palette" / "tenants.db")
    monkeypatch.setenv("PALETTE_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"
    monkeypatch.setenv("PALETTE_STORE", "postgresql://x/y")
    assert store_url() == "postgresql://x/y"
    assert store_url("z.db") == "z.db"


def test_a_damaged_store_answers_nobody(hospital: tuple[Store, str]) -> None:
    store, text = hospital
    with store.database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE revocations")
    for asks in (lambda: store.known(text), lambda: store.grants("hospital"), store.revoked_certificates):
        with pytest.raises(StoreError, match="no such table"):
            asks()


def test_what_a_decision_needs_is_read_at_one_moment_in_one_transaction(any_store, signers):
    operator = Operator(any_store, "Olga", lambda: BEGIN)
    operator.add_tenant("hospital")
    key, text = operator.add_key("hospital")
    operator.add_grant(signers.grant("hospital", "medical"))
    begun: list[object] = []
    event.listen(any_store.database._engine, "begin", begun.append)
    with any_store.moment():
        before = any_store.known(text)
        with ThreadPoolExecutor(1) as pool:
            # Another thread writes, and sees what it has written.
            pool.submit(operator.revoke, "key", key.id, "lost").result()
            assert pool.submit(any_store.known, text).result() != before
        assert any_store.known(text) == before
        assert len(any_store.grants("hospital")) == 1
        assert any_store.revoked_certificates() == {}
    assert len(begun) == 3, "the moment, the revocation, and the other thread's look"
    assert any_store.known(text) != before
