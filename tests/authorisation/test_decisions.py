"""The law of decisions over drawn tenants, keys, grants and certificates, and broken ones that it catches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import Certified, Credential, Decision, Grant, Reason, Request, Tenant, decide
from palette.authorisation.grants import authorisation_name
from tests.fixtures.keys import DAY, NOW

DOMAINS = ["energy", "legal", "medical", "weapons"]
TENANT = Tenant("st-mary", "St Mary's Hospital")

sets = st.frozensets(st.sampled_from(DOMAINS))
instants = st.integers(-3, 3).map(lambda days: NOW + days * DAY)
maybe = st.none() | instants
tenants = st.sampled_from(["st-mary", "other"])
credentials = st.builds(
    Credential, st.sampled_from(["k1", "k2"]), tenants, st.none() | sets, maybe, st.none() | st.just(NOW)
)
grants = st.builds(
    Grant,
    st.uuids().map(str),
    tenants,
    sets,
    issued=instants,
    not_before=instants,
    expires=instants,
    evidence=st.just("contract"),
    issuer=st.sampled_from(["ann", "bob"]),
    digest=st.uuids().map(str),
    revoked=st.none() | st.just(NOW),
    holder=st.sampled_from(["", "Ann", "Bob"]),
)
certificates = st.builds(
    Certified,
    st.uuids().map(str),
    st.just("adapter"),
    sets,
    st.sampled_from(["b1", "b2"]),
    st.just("floor"),
    st.sampled_from(["cy", "ann"]),
    instants,
    instants,
    st.none() | st.just(NOW),
    st.sampled_from(["", "ann", "Cy"]),
)
models = sets.map(authorisation_name)

Decide = Callable[..., Decision]


def law(
    decide: Decide, tenant: Tenant | None, request: Request, held: list[Grant], known: list[Certified]
) -> None:
    """What is allowed was granted, certified, current, unrevoked, and asked for by its own name."""
    found = decide(tenant, request, held, known, NOW)
    if not found.allowed:
        assert found.certificate is None and found.status in (401, 403)
        return
    assert tenant is not None and not tenant.suspended and found.status == 200
    assert request.credentials and all(each.tenant == tenant.id for each in request.credentials)
    assert all(each.revoked is None for each in request.credentials)
    assert all(each.expires is None or each.expires > NOW for each in request.credentials)
    current = [
        each
        for each in held
        if each.tenant == tenant.id and each.revoked is None and each.not_before <= NOW < each.expires
    ]
    granted = frozenset(domain for each in current for domain in each.domains)
    for each in request.credentials:
        granted = granted if each.domains is None else granted & each.domains
    assert granted == found.domains and "weapons" not in granted and granted
    assert request.model == authorisation_name(granted)
    chosen = found.certificate
    assert chosen is not None and chosen in known and chosen.revoked is None
    assert (chosen.domains, chosen.backbone) == (granted, request.backbone)
    assert chosen.not_before <= NOW < chosen.expires
    used = [each for each in current if each.domains & granted]
    assert chosen.signer not in {each.issuer for each in used}
    assert not chosen.holder or chosen.holder.casefold() not in {each.holder.casefold() for each in used}
    assert found.until is not None and NOW < found.until <= chosen.expires


@given(
    st.none() | st.builds(Tenant, tenants, st.just("name"), st.booleans()),
    st.builds(Request, models, st.lists(credentials, max_size=3).map(tuple), st.sampled_from(["b1", "b2"])),
    st.lists(grants, max_size=4),
    st.lists(certificates, max_size=4),
)
def test_nothing_is_allowed_but_by_the_law(
    tenant: Tenant | None, request: Request, held: list[Grant], known: list[Certified]
) -> None:
    law(decide, tenant, request, held, known)


def a_grant(*domains: str, **changes: object) -> Grant:
    made = Grant(
        *("g", "st-mary", frozenset(domains), NOW - DAY, NOW - DAY, NOW + DAY),
        *("contract", "ann", "-".join(domains)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def a_certificate(*domains: str, **changes: object) -> Certified:
    made = Certified("c", "a", frozenset(domains), "b1", "f", "cy", NOW - DAY, NOW + 2 * DAY)
    return replace(made, **changes)  # type: ignore[arg-type]


def asked(model: str, *more: Credential, **changes: object) -> Request:
    return Request(model, (replace(Credential("k1", "st-mary"), **changes), *more), "b1")  # type: ignore[arg-type]


def test_a_granted_and_certified_domain_is_allowed_until_the_first_end() -> None:
    found = decide(TENANT, asked("medical"), [a_grant("medical")], [a_certificate("medical")], NOW)
    assert (found.reason, found.until, found.name) == (Reason.ALLOWED, NOW + DAY, "medical")


HELD = [a_grant("medical"), a_grant("legal")]
WHOLE = [a_certificate("medical"), a_certificate("legal"), a_certificate("legal", "medical")]
DENIED: dict[str, tuple[Tenant | None, Request, list[Grant], list[Certified], Reason]] = {
    "nobody": (None, asked("medical"), HELD, WHOLE, Reason.NO_TENANT),
    "no credential": (TENANT, Request("medical", (), "b1"), HELD, WHOLE, Reason.NO_TENANT),
    "another tenant's credential": (TENANT, asked("medical", tenant="other"), HELD, WHOLE, Reason.NO_TENANT),
    "suspended": (replace(TENANT, suspended=True), asked("legal+medical"), HELD, WHOLE, Reason.SUSPENDED),
    "an expired key": (TENANT, asked("legal+medical", expires=NOW), HELD, WHOLE, Reason.EXPIRED_CREDENTIAL),
    "a revoked key": (TENANT, asked("legal+medical", revoked=NOW), HELD, WHOLE, Reason.REVOKED_CREDENTIAL),
    "a revoked parent": (
        *(TENANT, asked("legal+medical", Credential("k0", "st-mary", revoked=NOW)), HELD, WHOLE),
        Reason.REVOKED_CREDENTIAL,
    ),
    "a child wider than its parent": (
        *(TENANT, asked("medical", Credential("k0", "st-mary", frozenset({"medical"}))), HELD, WHOLE),
        Reason.WIDER_CREDENTIAL,
    ),
    "no grant": (TENANT, asked("medical"), [], WHOLE, Reason.NO_GRANT),
    "another tenant's grant": (
        TENANT,
        asked("medical"),
        [a_grant("medical", tenant="other")],
        WHOLE,
        Reason.NO_GRANT,
    ),
    "a revoked grant": (TENANT, asked("medical"), [a_grant("medical", revoked=NOW)], WHOLE, Reason.NO_GRANT),
    "a grant to come": (
        TENANT,
        asked("medical"),
        [a_grant("medical", not_before=NOW + DAY)],
        WHOLE,
        Reason.NO_GRANT,
    ),
    "a grant that ends now": (
        TENANT,
        asked("medical"),
        [a_grant("medical", expires=NOW)],
        WHOLE,
        Reason.NO_GRANT,
    ),
    "the floor": (
        TENANT,
        asked("weapons"),
        [a_grant("weapons")],
        [a_certificate("weapons")],
        Reason.NO_GRANT,
    ),
    "a part of its domains": (TENANT, asked("medical"), HELD, WHOLE, Reason.NOT_GRANTED),
    "the parts in another order": (TENANT, asked("medical+legal"), HELD, WHOLE, Reason.NOT_GRANTED),
    "an ungranted domain": (TENANT, asked("energy"), HELD, WHOLE, Reason.NOT_GRANTED),
    "the backbone": (TENANT, asked(""), HELD, WHOLE, Reason.NOT_GRANTED),
    "no merged certificate": (TENANT, asked("legal+medical"), HELD, WHOLE[:2], Reason.NO_CERTIFICATE),
    "a larger certificate": (TENANT, asked("medical"), HELD[:1], WHOLE[2:], Reason.NO_CERTIFICATE),
    "another backbone's": (
        *(TENANT, asked("medical"), HELD[:1], [a_certificate("medical", backbone="b2")]),
        Reason.NO_CERTIFICATE,
    ),
    "a revoked certificate": (
        *(TENANT, asked("medical"), HELD[:1], [a_certificate("medical", revoked=NOW)]),
        Reason.NO_CERTIFICATE,
    ),
    "an expired certificate": (
        *(TENANT, asked("medical"), HELD[:1], [a_certificate("medical", expires=NOW)]),
        Reason.NO_CERTIFICATE,
    ),
    "certified by another key of who granted": (
        *(TENANT, asked("medical"), [a_grant("medical", holder="Ann Lee")]),
        [a_certificate("medical", holder="ann  LEE")],
        Reason.SELF_CERTIFIED,
    ),
    "certified by who granted": (
        *(TENANT, asked("medical"), HELD[:1], [a_certificate("medical", signer="ann")]),
        Reason.SELF_CERTIFIED,
    ),
}


@pytest.mark.parametrize("case", DENIED)
def test_it_denies(case: str) -> None:
    tenant, request, held, known, reason = DENIED[case]
    assert decide(tenant, request, held, known, NOW).reason is reason


def test_a_merge_outlives_neither_of_its_grants() -> None:
    """Both grants are needed now (METHODS.md section 9, Colluding LoRA)."""
    both = decide(TENANT, asked("legal+medical"), HELD, WHOLE, NOW)
    ended = [HELD[0], replace(HELD[1], expires=NOW)]
    assert both.allowed
    assert decide(TENANT, asked("legal+medical"), ended, WHOLE, NOW).reason is Reason.NOT_GRANTED
    assert decide(TENANT, asked("medical"), ended, WHOLE, NOW).allowed


def test_a_narrower_key_asks_for_its_part_alone() -> None:
    narrow = frozenset({"medical"})
    assert decide(TENANT, asked("medical", domains=narrow), HELD, WHOLE, NOW).allowed
    found = decide(TENANT, asked("legal+medical", domains=narrow), HELD, WHOLE, NOW)
    assert found.reason is Reason.NOT_GRANTED


def test_all_gateways_choose_alike() -> None:
    several = [
        a_certificate("medical", id=name, not_before=NOW - days * DAY)
        for name, days in (("a", 2), ("b", 1), ("c", 1))
    ]
    chosen = {
        decide(TENANT, asked("medical"), HELD[:1], order, NOW).certificate
        for order in (several, several[::-1])
    }
    assert {each.id for each in chosen if each} == {"c"}


def whoever(tenant: Tenant | None, request: Request, *more: Any) -> Decision:
    """Asks nobody who asks."""
    known = replace(tenant or TENANT, suspended=False)
    return decide(known, replace(request, credentials=(Credential("k", known.id),)), *more)


def ever(tenant: Tenant | None, request: Request, held: list[Grant], *more: Any) -> Decision:
    """Takes a grant for one that never ends."""
    lasting = [replace(each, expires=NOW + 900 * DAY, revoked=None) for each in held]
    return decide(tenant, request, lasting, *more)


def any_name(tenant: Tenant | None, request: Request, *more: Any) -> Decision:
    """Answers another model than was asked for."""
    return decide(tenant, replace(request, model=decide(tenant, request, *more).name), *more)


BROKEN: dict[str, tuple[Decide, Tenant, Request, list[Grant]]] = {
    "whoever": (whoever, replace(TENANT, suspended=True), asked("medical"), HELD[:1]),
    "ever": (ever, TENANT, asked("medical"), [a_grant("medical", expires=NOW)]),
    "any name": (any_name, TENANT, asked("energy"), HELD[:1]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_law_catches_a_decision_that_believes_too_much(fault: str) -> None:
    broken, tenant, request, held = BROKEN[fault]
    law(decide, tenant, request, held, WHOLE)
    with pytest.raises(AssertionError):
        law(broken, tenant, request, held, WHOLE)
