"""Rates: never more than the limit in any minute, and room again as soon as it is told."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.gateway.limits import MINUTE, Shared, Windows

PAUSES = st.lists(st.sampled_from([0.0, 0.5, 7.0, 19.0, 29.5, 60.0, 61.0]), max_size=60)


class FixedMinutes(Windows):
    """Counts by the minute of the clock, so that twice the limit passes about its turn."""

    def hit(self, most: int, kind: str, who: str) -> float | None:
        minute = self._clock() // MINUTE
        self._counts = getattr(self, "_counts", Counter())
        if self._counts[minute] >= most:
            return (minute + 1) * MINUTE - self._clock()
        self._counts[minute] += 1
        return None


def never_too_many(kind: type[Windows], pauses: list[float], most: int) -> None:
    now = 0.0
    windows, passed = kind(lambda: now), []
    for pause in pauses:
        now += pause
        again = windows.hit(most, "key", "a")
        if again is None:
            passed.append(now)
        else:
            assert 0 < again <= MINUTE
            assert len([each for each in passed if now + again - each < MINUTE]) < most
        assert len([each for each in passed if now - each < MINUTE]) <= most


@given(PAUSES, st.integers(1, 5))
def test_never_more_than_the_limit_in_any_minute(pauses, most):
    never_too_many(Windows, pauses, most)


def test_minutes_of_the_clock_are_found_out():
    with pytest.raises(AssertionError):
        never_too_many(FixedMinutes, [59.0, 0.0, 1.5, 0.0], 2)


def test_keys_are_counted_apart_and_forgotten_once_they_are_idle():
    now = 0.0
    windows = Windows(lambda: now)
    assert [windows.hit(1, "key", each) for each in "abc"] == [None] * 3
    assert windows.hit(1, "key", "a") == MINUTE
    now = 61.0
    assert windows.hit(1, "address", "d") is None
    assert list(windows._asked) == [("address", "d")]


def test_rates_of_several_gateways_are_counted_where_they_are_told():
    shared = Shared("memory://")
    assert [shared.hit(2, "key", "a") for _ in range(2)] == [None, None]
    assert 0 < (shared.hit(2, "key", "a") or 0) <= MINUTE
    assert shared.hit(2, "key", "b") is None
