"""Every hole that was found in another gateway is closed here, and its check finds a broken variant out."""

from __future__ import annotations

import pytest

from tests.gateway import holes_of_requests, holes_of_trust
from tests.gateway.holes import FOUND_OUT

HOLES = {**holes_of_requests.HOLES, **holes_of_trust.HOLES}


def test_no_two_rows_have_one_name():
    assert len(HOLES) == len(holes_of_requests.HOLES) + len(holes_of_trust.HOLES)


@pytest.mark.parametrize("name", HOLES)
def test_it_holds(name, world):
    check, _ = HOLES[name]
    check(world)


@pytest.mark.parametrize("name", HOLES)
def test_a_broken_gateway_is_found_out(name, world, monkeypatch):
    check, broken = HOLES[name]
    broken(monkeypatch, world)
    with pytest.raises(FOUND_OUT):
        check(world)
