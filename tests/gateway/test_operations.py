"""Deeds: each with its entry of the ledger or not at all, and none that gives more than there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from palette.errors import AuthorisationError, PaletteError, SignatureError, StoreError
from palette.gateway import operations
from palette.gateway.auditing import audit, recent
from palette.gateway.operations import Operator
from palette.gateway.store import GENERATIONS, Store
from palette.gateway.tables import REVOCATIONS
from tests.gateway.signers import BEGIN, Signers

DAY = timedelta(days=1)


def deeds(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """The kinds of what was done, and what else its entries say, the oldest first."""
    found = [each["event"] for each in recent(store, 100)]
    return [(event.pop("kind"), event) for event in reversed(found)][1:]


def test_every_deed_has_its_entry(operator: Operator, signers: Signers) -> None:
    operator.add_tenant("hospital", "St. Ann")
    grant = operator.add_grant(signers.grant("hospital", "medical"))
    key, text = operator.add_key("hospital", ["medical"], BEGIN + DAY)
    operator.suspend("hospital", "audit")
    operator.resume("hospital", "audit passed")
    operator.revoke("key", key.id, "lost")
    operator.revoke("grant", grant.id, "over")
    operator.revoke("certificate", "c" * 64, "withdrawn")
    found = deeds(operator.store)
    assert [kind for kind, _ in found] == [
        "tenant", "grant", "key", "suspension", "resumption", "revocation", "revocation", "revocation",
    ]  # fmt: skip
    assert {event["remarks"]["who"] for _, event in found} == {"Olga"}
    assert [event.get("tenant") for _, event in found] == ["hospital"] * 7 + [None]
    assert found[1][1]["grants"] == [grant.digest]
    assert found[2][1]["credential"] == key.id
    assert found[3][1]["reason"] == "audit"
    assert found[5][1]["remarks"] == {"what": "key", "subject": key.id, "who": "Olga"}
    assert text.split("_")[2] not in str(found)
    assert audit(operator.store)["holds"]


DEEDS: dict[str, Callable[[Operator, Signers], object]] = {
    "tenant": lambda operator, signers: operator.add_tenant("bank"),
    "key": lambda operator, signers: operator.add_key("hospital"),
    "grant": lambda operator, signers: operator.add_grant(signers.grant("hospital", "medical")),
    "suspension": lambda operator, signers: operator.suspend("hospital", "audit"),
    "revocation": lambda operator, signers: operator.revoke("certificate", "c" * 64, "withdrawn"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_cannot_be_recorded_is_not_done(
    operator: Operator, signers: Signers, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    def full(*_: object) -> None:
        raise StoreError("a full disk")

    operator.add_tenant("hospital")

    def state() -> list[object]:
        store = operator.store
        return [store.tenants(), store.credentials(), store.grants(), store.revoked_certificates()]

    before = state()
    with monkeypatch.context() as patched:
        patched.setattr(operations, "append", full)
        with pytest.raises(StoreError, match="a full disk"):
            DEEDS[deed](operator, signers)
    assert state() == before
    DEEDS[deed](operator, signers)
    assert state() != before


DOMAINS = ("medical", "legal", "finance")
Asked = tuple[frozenset[str] | None, int | None]
ASKED = st.tuples(
    st.none() | st.frozensets(st.sampled_from(DOMAINS), min_size=1), st.none() | st.integers(1, 9)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ASKED, min_size=2, max_size=4))
def test_no_line_of_keys_ever_widens(operator: Operator, asked: list[Asked]) -> None:
    tenant = f"t{len(operator.store.tenants())}"
    operator.add_tenant(tenant)
    parent = None
    for domains, days in asked:
        expires = None if days is None else BEGIN + days * DAY
        try:
            made, text = operator.add_key(tenant, domains, expires, parent)
        except AuthorisationError as error:
            assert "within its parent's" in str(error) or "with its parent at the latest" in str(error)
            continue
        parent = made.id
        known = operator.store.known(text)
        assert known is not None
        for child, above in zip(known[1], known[1][1:], strict=False):
            assert above.domains is None or (child.domains is not None and child.domains <= above.domains)
            assert above.expires is None or (child.expires is not None and child.expires <= above.expires)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (lambda o: o.add_tenant("Hospital"), "a tenant must be named by small letters"),
        (lambda o: o.add_tenant("../hospital"), "a tenant must be named by small letters"),
        (lambda o: o.add_tenant("hospital"), "a tenant is added once, got hospital again"),
        (lambda o: o.add_tenant("bank", "a\nb"), "a tenant's name must be one line"),
        (lambda o: o.suspend("hospitl", "x"), "got none of hospitl; did you mean hospital?"),
        (lambda o: o.suspend("nobody", "x"), "palette tenant add adds one"),
        (lambda o: o.suspend("hospital", "  "), "the reason of a suspension must be one line"),
        (lambda o: o.resume("hospital", "x"), "a resumption must change something of a tenant"),
        (lambda o: o.add_key("nobody"), "must have been added"),
        (lambda o: o.add_key("hospital", []), "a key must be for a domain"),
        (lambda o: o.add_key("hospital", ["weapons"]), "the floor cannot be authorised, got 'weapons'"),
        (lambda o: o.add_key("hospital", ["Medical"]), "a domain must be named by small letters"),
        (lambda o: o.add_key("hospital", None, BEGIN), "must expire in the future, got 2026-01-01T00:00:00Z"),
        (lambda o: o.add_key("hospital", parent="f" * 16), "must be a key of the same tenant"),
        (lambda o: o.revoke("key", "f" * 16, "x"), "a key must be in the store to be revoked"),
        (lambda o: o.revoke("grant", "f" * 32, "x"), "a grant must be in the store to be revoked"),
        (lambda o: o.revoke("certificate", "f" * 63, "x"), "by its id, 64 hexadecimal digits"),
        (lambda o: o.revoke("key", "f" * 16, ""), "the reason of a revocation must be one line"),
        (lambda o: replace(o, who="").suspend("hospital", "x"), "the name of who does it must be one line"),
    ],
)  # fmt: skip
def test_what_is_refused(operator: Operator, deed: Callable[[Operator], object], said: str) -> None:
    operator.add_tenant("hospital")
    before = deeds(operator.store)
    with pytest.raises(AuthorisationError) as told:
        deed(operator)
    assert said in str(told.value)
    assert deeds(operator.store) == before


def test_parents_that_do_not_hold_have_no_children(operator: Operator) -> None:
    operator.add_tenant("hospital")
    operator.add_tenant("bank")
    key, _ = operator.add_key("hospital", ["medical"], BEGIN + DAY)
    for tenant, later, said in (
        ("bank", operator, "of the same tenant"),
        (
            "hospital",
            replace(operator, clock=lambda: BEGIN + DAY),
            "must hold, got one that is revoked or expired",
        ),
    ):
        with pytest.raises(AuthorisationError, match=said):
            later.add_key(tenant, parent=key.id)
    operator.revoke("key", key.id, "lost")
    with pytest.raises(AuthorisationError, match="must hold"):
        operator.add_key("hospital", parent=key.id)
    with pytest.raises(AuthorisationError, match="revoked once, got one since 2026-01-01T00:00:00Z"):
        operator.revoke("key", key.id, "lost")


def test_a_line_of_keys_has_an_end(operator: Operator) -> None:
    operator.add_tenant("hospital")
    key, _ = operator.add_key("hospital")
    for _ in range(GENERATIONS - 1):
        key, text = operator.add_key("hospital", parent=key.id)
    known = operator.store.known(text)
    assert known is not None
    assert len(known[1]) == GENERATIONS
    with pytest.raises(AuthorisationError, match="at most 7 parents"):
        operator.add_key("hospital", parent=key.id)


def test_a_grant_is_added_as_it_was_signed(operator: Operator, signers: Signers) -> None:
    with pytest.raises(AuthorisationError, match="must have been added"):
        operator.add_grant(signers.grant("hospital", "medical"))
    operator.add_tenant("hospital")
    with pytest.raises(SignatureError, match="must be of a trusted key"):
        operator.add_grant(signers.grant("hospital", "medical", key=signers.stranger))
    envelope = signers.grant("hospital", "medical")
    made = operator.add_grant(envelope)
    with pytest.raises(AuthorisationError, match=f"a grant is added once, got {made.id} again"):
        operator.add_grant(envelope)
    assert operator.store.grants("hospital") == [made]


def test_a_secret_given_for_an_id_is_not_said_again(operator: Operator) -> None:
    operator.add_tenant("hospital")
    _, text = operator.add_key("hospital")
    secret = text.split("_")[2]
    for deed in (
        lambda: operator.add_key("hospital", parent=text),
        lambda: operator.revoke("key", text, "lost"),
        lambda: operator.revoke("certificate", text, "lost"),
        lambda: operator.suspend(text, "lost"),
    ):
        with pytest.raises(PaletteError) as told:
            deed()
        assert secret[:8] not in str(told.value)
    operator.suspend("hospital", f"{text} was lost")
    operator.revoke("certificate", "c" * 64, f"{text} was lost")
    assert secret[:8] not in str(recent(operator.store, 9))
    with operator.store.database.reading() as connection:
        assert secret[:8] not in str(connection.execute(select(REVOCATIONS)).all())
