from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from palette.statistics.rates import (
    Corrected,
    Rate,
    minimum_n,
    non_inferior,
    resolving_n,
    rogan_gladen,
    wilson,
)

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombe_s_table(k: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17, 1998, p. 857, table I, method 3."""
    rate = wilson(k, n)
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)
    assert rate.rate == k / n


def test_none_of_a_hundred_still_allows_almost_four_percent() -> None:
    assert round(wilson(0, 100).high, 3) == 0.037
    assert wilson(0, 100).low == 0
    assert wilson(100, 100).high == 1


def test_of_nothing_counted_nothing_is_known() -> None:
    assert wilson(0, 0).to_json() == {"rate": 0.0, "low": 0.0, "high": 1.0, "k": 0, "n": 0}


@settings(deadline=None)
@given(COUNTS)
def test_wilson_contains_the_rate_and_mirrors(counts: tuple[int, int]) -> None:
    k, n = counts
    rate, mirror = wilson(k, n), wilson(n - k, n)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirror.high)


@settings(deadline=None)
@given(COUNTS)
def test_wilson_rises_with_k_and_narrows_with_n(counts: tuple[int, int]) -> None:
    k, n = counts
    rate, larger = wilson(k, n), wilson(2 * k, 2 * n)
    assert larger.high - larger.low < rate.high - rate.low
    if k < n:
        above = wilson(k + 1, n)
        assert above.low > rate.low or rate.low == 0
        assert above.high >= rate.high


@pytest.mark.parametrize(("k", "n"), [(2, 1), (-1, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in \[0, n\], got {k} of {n}"):
        wilson(k, n)


def covered(n: int, share: float, narrowed: float = 1.0) -> float:
    """The chance, by enumeration, that the interval of n draws holds their share."""
    total = 0.0
    for k in range(n + 1):
        rate = wilson(k, n)
        low, high = (rate.rate + narrowed * (end - rate.rate) for end in (rate.low, rate.high))
        total += float(binom.pmf(k, n, share)) * (low <= share <= high)
    return total


SHARES = [i / 40 for i in range(1, 40)]


@pytest.mark.parametrize("n", [10, 25, 40])
def test_wilson_s_coverage_is_95_percent_on_average_and_never_below_83(n: int) -> None:
    """Brown, Cai and DasGupta, Statistical Science 16, 2001: mean near 0.95, dips near the ends."""
    found = [covered(n, share) for share in SHARES]
    assert 0.94 < sum(found) / len(found) < 0.97
    assert min(found) > 0.83


def test_an_interval_that_is_too_narrow_is_caught_by_its_coverage() -> None:
    found = [covered(25, share, narrowed=0.8) for share in SHARES]
    assert sum(found) / len(found) < 0.93


@pytest.mark.parametrize(("margin", "n"), [(0.05, 73), (0.02, 189), (0.01, 381), (0.9, 1)])
def test_minimum_n_is_the_fewest_that_can_pass(margin: float, n: int) -> None:
    assert minimum_n(margin) == n
    assert non_inferior(0, n, margin).passed
    if n > 1:
        assert not non_inferior(0, n - 1, margin).passed


@settings(deadline=None)
@given(st.floats(0.001, 0.99))
def test_minimum_n_agrees_with_the_test(margin: float) -> None:
    n = minimum_n(margin)
    assert non_inferior(0, n, margin).passed
    assert n == 1 or not non_inferior(0, n - 1, margin).enough


@settings(deadline=None)
@given(st.floats(0.005, 0.9), st.floats(0.0, 0.95))
def test_so_many_prompts_make_good_what_was_lost(margin: float, part: float) -> None:
    rate = part * margin
    n = minimum_n(margin, rate)
    assert n >= minimum_n(margin)
    assert non_inferior(int(rate * n), n, margin).passed
    with pytest.raises(ValueError, match="rate must be in"):
        minimum_n(margin, margin)


def test_non_inferiority_at_the_organism_s_sizes() -> None:
    assert non_inferior(0, 100, 0.05).passed
    assert not non_inferior(1, 100, 0.05).passed
    assert non_inferior(1, 120, 0.05).passed
    assert non_inferior(1, 300, 0.02).passed
    assert not non_inferior(2, 300, 0.02).passed
    assert not non_inferior(0, 40, 0.05).enough


@settings(deadline=None)
@given(COUNTS, st.floats(0.01, 0.5))
def test_one_more_loss_never_helps(counts: tuple[int, int], margin: float) -> None:
    lost, n = counts
    if lost < n:
        assert non_inferior(lost, n, margin).high <= non_inferior(lost + 1, n, margin).high


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_a_margin_is_a_share(margin: float) -> None:
    for call in (lambda: minimum_n(margin), lambda: non_inferior(0, 10, margin)):
        with pytest.raises(ValueError, match=r"margin must be in \(0, 1\), got"):
            call()


@pytest.mark.parametrize(("n", "margin"), [(100, 0.05), (300, 0.02), (30, 0.15)])
def test_a_loss_at_the_margin_seldom_passes(n: int, margin: float) -> None:
    """The error of a one-sided score bound; nominally 2.5 %, at these sizes never twice that."""
    passes = sum(float(binom.pmf(k, n, margin)) for k in range(n + 1) if non_inferior(k, n, margin).passed)
    assert passes < 0.05
    on_the_estimate = sum(float(binom.pmf(k, n, margin)) for k in range(n + 1) if k / n <= margin)
    assert on_the_estimate > 0.05


@pytest.mark.parametrize(("limit", "n"), [(0.05, 20), (0.01, 100), (0.3, 4), (0.5, 2)])
def test_one_prompt_of_the_fewest_is_within_the_limit(limit: float, n: int) -> None:
    assert resolving_n(limit) == n
    assert 1 / n <= limit < 1 / (n - 1)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_a_limit_is_a_share(limit: float) -> None:
    with pytest.raises(ValueError, match=r"limit must be in \(0, 1\), got"):
        resolving_n(limit)


Correction = Callable[[Rate, Rate, Rate], Corrected]
MANY = 10**8


def known(share: float) -> Rate:
    return wilson(round(share * MANY), MANY)


def test_the_correction_gives_the_published_example() -> None:
    """epiR (R), epi.prev: 23 of 150 with Se .96 and Sp .89 by Rogan and Gladen: 5.1 %, 0 to 13 %."""
    found = rogan_gladen(wilson(23, 150), known(0.96), known(0.89))
    assert [round(100 * value, 1) for value in (found.rate, found.low)] == [5.1, 0.0]
    assert round(100 * found.high) == 13


def test_a_share_below_the_false_alarms_is_none() -> None:
    """epiR, epi.prev, second example: 6 of 151 with Se .964 and Sp .927 leave 0 %, at most 1.3 %."""
    found = rogan_gladen(wilson(6, 151), known(0.964), known(0.927))
    assert (found.rate, found.low) == (0, 0)
    assert 0.005 < found.high < 0.03


SHARES_AGREEMENT = st.integers(0, 60).map(lambda k: wilson(k, 60))
GOOD = st.integers(45, 60).map(lambda k: wilson(k, 60))


@given(SHARES_AGREEMENT, GOOD, GOOD)
def test_the_correction_holds_its_estimate_and_mirrors(rate: Rate, se: Rate, sp: Rate) -> None:
    found = rogan_gladen(rate, se, sp)
    mirror = rogan_gladen(wilson(rate.n - rate.k, rate.n), sp, se)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.rate == pytest.approx(1 - mirror.rate)
    assert (found.low, found.high) == pytest.approx((1 - mirror.high, 1 - mirror.low))


@given(st.integers(0, 59), GOOD, GOOD)
def test_the_correction_rises_with_the_count(k: int, se: Rate, sp: Rate) -> None:
    less, more = (rogan_gladen(wilson(count, 60), se, sp) for count in (k, k + 1))
    assert less.rate <= more.rate
    assert less.high <= more.high + 1e-9


def test_a_perfect_judge_corrects_nothing() -> None:
    rate, found = wilson(30, 100), rogan_gladen(wilson(30, 100), known(1), known(1))
    assert found.rate == pytest.approx(rate.rate)
    assert (found.low, found.high) == pytest.approx((rate.low, rate.high), abs=0.01)


def counts_the_calibration_s_error(correct: Correction) -> None:
    rate = wilson(60, 200)
    often = correct(rate, wilson(900, 1000), wilson(900, 1000))
    seldom = correct(rate, wilson(27, 30), wilson(27, 30))
    assert seldom.high - seldom.low > 1.2 * (often.high - often.low)


def plugged_in(rate: Rate, sensitivity: Rate, specificity: Rate) -> Corrected:
    def moved(share: float) -> float:
        return (share + specificity.rate - 1) / (sensitivity.rate + specificity.rate - 1)

    return Corrected(moved(rate.rate), moved(rate.low), moved(rate.high))


def test_an_uncertain_calibration_widens_the_interval() -> None:
    counts_the_calibration_s_error(rogan_gladen)
    with pytest.raises(AssertionError):
        counts_the_calibration_s_error(plugged_in)


def coverage(correct: Correction, true: float, se: float, sp: float, n: int) -> float:
    """The chance, by enumeration of three binomials, that the interval holds the true share."""
    observed, total = true * se + (1 - true) * (1 - sp), 0.0
    sides = [[(k, float(binom.pmf(k, n, p))) for k in range(n + 1)] for p in (observed, se, sp)]
    likely = [[(k, chance) for k, chance in side if chance > 1e-3] for side in sides]
    for (q, a), (s, b), (t, c) in product(*likely):
        rate, found_se, found_sp = (wilson_of(k, n) for k in (q, s, t))
        found = correct(rate, found_se, found_sp)
        total += a * b * c * (found.low <= true <= found.high)
    return total


CACHE: dict[tuple[int, int], Rate] = {}


def wilson_of(k: int, n: int) -> Rate:
    if (k, n) not in CACHE:
        CACHE[k, n] = wilson(k, n)
    return CACHE[k, n]


@pytest.mark.parametrize("true", [0.02, 0.3, 0.6])
def test_the_interval_covers_by_enumeration(true: float) -> None:
    assert coverage(rogan_gladen, true, 0.9, 0.95, 40) > 0.92


def test_an_interval_without_the_calibration_s_error_does_not_cover() -> None:
    assert coverage(plugged_in, 0.6, 0.85, 0.85, 40) < 0.92


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_judge_no_better_than_chance_corrects_nothing(k: int, j: int) -> None:
    se, sp = wilson(k, 40), wilson(j, 40)
    if se.low + sp.low <= 1:
        with pytest.raises(ValueError, match="a rate can be corrected for a judge better than chance only"):
            rogan_gladen(wilson(5, 10), se, sp)
    else:
        assert k + j > 40


def test_a_judge_that_was_hardly_measured_corrects_nothing() -> None:
    with pytest.raises(ValueError, match=r"got sensitivity 1.000 of 3 and specificity 0.000 of 0"):
        rogan_gladen(wilson(5, 10), wilson(3, 3), wilson(0, 0))
