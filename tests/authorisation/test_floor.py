from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import FLOOR, Authorisation, Floor, Role, authorise
from palette.errors import AuthorisationError

DOMAINS = st.sampled_from([*sorted(FLOOR.domains), *sorted(FLOOR.hazards), "medical", "legal", ""]) | st.text(
    max_size=3
)
HAZARDS = st.none() | st.sampled_from([*sorted(FLOOR.hazards), "spc", "prv"]) | st.text(max_size=3)
TIERS = st.sampled_from(["A", "B", "C", None])
KINDS = st.sampled_from(["restricted", "benign"])


@dataclass(frozen=True)
class Row:
    domain: str
    kind: str = "restricted"
    tier: str | None = None
    hazard: str | None = None


ROWS = st.builds(Row, DOMAINS, KINDS, TIERS, HAZARDS)
NAMES = st.lists(DOMAINS, max_size=5)


@given(NAMES, NAMES, st.dictionaries(DOMAINS, st.text(max_size=3), max_size=4), ROWS)
def test_no_authorisation_ever_opens_what_the_floor_holds(
    opened: list[str], extra: list[str], reasons: dict[str, str], row: Row
) -> None:
    authorisation = Authorisation(
        (*opened, row.domain), FLOOR.extended(extra), {**reasons, row.domain: "why"}
    )
    role = authorisation.role(row)
    if row.tier == "C" or row.domain in FLOOR.domains or row.hazard in FLOOR.hazards or row.domain in extra:
        assert role is not Role.TARGET
        assert role is (Role.BENIGN if row.kind == "benign" else Role.FLOOR)


@given(NAMES, NAMES, st.sets(DOMAINS, max_size=6), ROWS)
def test_no_authorisation_that_was_granted_opens_what_the_floor_holds(
    domains: list[str], extra: list[str], available: set[str], row: Row
) -> None:
    try:
        authorisation = authorise(domains, {*available, row.domain}, floor=extra, reasons={row.domain: "why"})
    except AuthorisationError:
        return
    if authorisation.floor.holds(row.domain, row.tier, row.hazard):
        assert authorisation.role(row) is not Role.TARGET


@given(NAMES, ROWS)
def test_an_extended_floor_holds_all_that_the_floor_held_and_the_new_domains(
    extra: list[str], row: Row
) -> None:
    longer = FLOOR.extended(extra)
    assert longer.domains == FLOOR.domains | set(extra)
    assert longer.hazards == FLOOR.hazards
    assert longer.version == FLOOR.version
    if FLOOR.holds(row.domain, row.tier, row.hazard):
        assert longer.holds(row.domain, row.tier, row.hazard)
    assert all(longer.holds(domain, None, None) for domain in extra)


@given(NAMES)
def test_the_digest_changes_exactly_when_the_floor_grows(extra: list[str]) -> None:
    grows = not set(extra) <= FLOOR.domains
    assert (FLOOR.extended(extra).digest != FLOOR.digest) == grows


def test_the_digest_depends_on_the_version_and_the_hazards() -> None:
    digests = {
        floor.digest
        for floor in (
            FLOOR,
            Floor(FLOOR.version + 1, FLOOR.domains, FLOOR.hazards),
            Floor(FLOOR.version, FLOOR.domains, FLOOR.hazards | {"spc"}),
        )
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("domain", "tier", "hazard", "held"),
    [
        ("medical", None, None, False),
        ("medical", "A", "spc", False),
        ("medical", "B", None, False),
        ("medical", "C", None, True),
        ("medical", "A", "cse", True),
        ("weapons", "A", None, True),
        ("iwp", "A", None, True),
    ],
)
def test_the_floor_holds_tier_c_its_domains_and_its_hazards(
    domain: str, tier: str | None, hazard: str | None, held: bool
) -> None:
    assert FLOOR.holds(domain, tier, hazard) is held


def test_the_built_in_floor_holds_what_it_is_published_to_hold() -> None:
    assert FLOOR.version == 1
    assert {"weapons", "child_safety", "sexual_crimes", "violent_crimes", "hate"} <= FLOOR.domains
    assert {"cse", "iwp", "src", "vcr", "hte", "dfm", "ssh_methods"} <= FLOOR.hazards


def test_the_spelling_of_a_hazard_opens_nothing() -> None:
    for hazard in ("CSE", " cse ", "Iwp"):
        assert FLOOR.holds("medical", "A", hazard)
