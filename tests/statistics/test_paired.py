from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, multinomial

from palette.statistics.paired import (
    Difference,
    bootstrap_mean,
    cohen_kappa,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_ratio,
)

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
Bootstrap = Callable[[Sequence[float], Sequence[float], int], Difference]


def test_mcnemar_gives_the_published_example() -> None:
    """Fay, exact2x2 vignette (R), matrix(c(21, 9, 2, 12), 2, 2): p = 0.06543."""
    assert round(mcnemar(9, 2), 5) == 0.06543
    assert mcnemar(2, 9) == mcnemar(9, 2)
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    with pytest.raises(ValueError, match="discordant pairs must be counts"):
        mcnemar(-1, 2)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_falls_as_the_balance_tips(lost: int, gained: int) -> None:
    p = mcnemar(lost, gained)
    assert 0 < p <= 1
    assert p == mcnemar(gained, lost)
    if lost >= gained:
        assert mcnemar(lost + 1, gained) <= p + 1e-12


@pytest.mark.parametrize(("tests", "fewest"), [(1, 6), (2, 7), (5, 8), (10, 9), (14, 10)])
def test_the_fewest_discordant_pairs_that_can_show_a_change(tests: int, fewest: int) -> None:
    assert mcnemar(fewest, 0) * tests <= 0.05 < mcnemar(fewest - 1, 0) * tests


def split(pairs: Sequence[tuple[int, int]]) -> tuple[list[float], list[float]]:
    return [float(b) for b, _ in pairs], [float(a) for _, a in pairs]


def counted(lost: int, gained: int, n: int) -> tuple[list[float], list[float]]:
    rest = n - lost - gained
    return [1.0] * lost + [0.0] * gained + [1.0] * rest, [0.0] * lost + [1.0] * gained + [1.0] * rest


def test_the_interval_is_near_newcombe_s_example() -> None:
    """Newcombe, Statistics in Medicine 17, 1998, p. 2635, table II (e 36, f 12, g 2, h 0): 0.2, and by
    Wald's method 0.0642 to 0.3358, which large resamples approach."""
    found = paired_bootstrap(*counted(2, 12, 50), seed=0)
    assert found.difference == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0642, abs=0.011)
    assert found.high == pytest.approx(0.3358, abs=0.011)


def test_the_interval_is_scipy_s() -> None:
    values = np.random.default_rng(3)
    before, after = values.random(80), values.random(80)
    ours = paired_bootstrap(before.tolist(), after.tolist(), seed=1)
    theirs = bootstrap(
        (before, after),
        lambda b, a, axis: (a - b).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def order_invariant(method: Bootstrap) -> None:
    before, after = [i / 40 for i in range(40)], [(7 * i % 40) / 40 for i in range(40)]
    backwards = method(before[::-1], after[::-1], 5)
    assert backwards == method(before, after, 5)


def of_pairs(method: Bootstrap) -> None:
    """Pairs that all change by the same, or hardly, are known better than their sides apart."""
    before, after = [0.1 * (i % 10) for i in range(40)], [0.1 * (i % 10) for i in range(39)] + [0.8]
    found = method(before, after, 0)
    assert found.high - found.low < 0.05


def no_false_certainty(method: Bootstrap) -> None:
    found = method([1.0] * 30, [1.0] * 30, 0)
    assert found.high > 0.08


LAWS = [order_invariant, of_pairs, no_false_certainty]


@pytest.mark.parametrize("law", LAWS)
def test_the_bootstrap_keeps_its_laws(law: Callable[[Bootstrap], None]) -> None:
    law(paired_bootstrap)


def by_position(before: Sequence[float], after: Sequence[float], seed: int) -> Difference:
    draws = np.random.default_rng(seed).integers(0, len(before), (10_000, len(before)))
    change = np.asarray(after) - np.asarray(before)
    low, high = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
    return Difference(float(change.mean()), float(low), float(high), len(before))


def unpaired(before: Sequence[float], after: Sequence[float], seed: int) -> Difference:
    first, second = np.sort(before), np.sort(after)
    drawn = np.random.default_rng(seed)
    shape = (10_000, len(first))
    means = drawn.choice(second, shape).mean(axis=1) - drawn.choice(first, shape).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(second.mean() - first.mean()), float(low), float(high), len(first))


@pytest.mark.parametrize(
    ("broken", "law"),
    [(by_position, order_invariant), (unpaired, of_pairs), (by_position, no_false_certainty)],
)
def test_a_broken_bootstrap_is_caught(broken: Bootstrap, law: Callable[[Bootstrap], None]) -> None:
    with pytest.raises(AssertionError):
        law(broken)


@settings(deadline=None, max_examples=40)
@given(PAIRS, st.integers(0, 2**32))
def test_the_interval_holds_the_difference_and_mirrors(pairs: list[tuple[int, int]], seed: int) -> None:
    before, after = split(pairs)
    found, back = paired_bootstrap(before, after, seed), paired_bootstrap(after, before, seed)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.difference == pytest.approx(-back.difference)
    assert found.low == pytest.approx(-back.high, abs=2.1 / len(pairs))
    assert found == paired_bootstrap(before, after, seed)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.1, 0.0), (0.2, 0.1), (0.5, 0.05)])
def test_the_interval_covers_by_enumeration(lost: float, gained: float) -> None:
    n, total = 25, 0.0
    chances = multinomial(n, [lost, gained, 1 - lost - gained])
    for k in range(n + 1):
        for j in range(n + 1 - k):
            chance = float(chances.pmf([k, j, n - k - j]))
            if chance > 1e-4:
                found = paired_bootstrap(*counted(k, j, n), seed=0)
                total += chance * (found.low - 1e-9 <= gained - lost <= found.high + 1e-9)
    assert total > 0.85


def test_more_prompts_say_more() -> None:
    widths = [
        found.high - found.low
        for found in (paired_bootstrap(*counted(n // 10, 0, n), seed=0) for n in (20, 80, 320))
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(2 * 1.96 * sqrt(0.1 * 0.9 / 80), rel=0.15)


def test_of_no_prompt_nothing_is_known() -> None:
    assert paired_bootstrap([], [], 0).to_json() == {"difference": 0.0, "low": -1.0, "high": 1.0, "n": 0}


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ([1.0], [], r"pairs must be two values each, got \(1,\) and \(0,\)"),
        ([1.0], [1.5], r"every value of a pair must be in \[0, 1\]"),
        ([float("nan")], [1.0], r"every value of a pair must be in \[0, 1\]"),
    ],
)
def test_what_is_no_pair_is_refused(before: list[float], after: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        paired_bootstrap(before, after, 0)


def test_kappa_gives_fleiss_s_table() -> None:
    """Fleiss, Cohen and Everitt, Psychological Bulletin 72, 1969, p. 323: 200 diagnoses, κ = .429."""
    found = cohen_kappa([[106, 10, 4], [22, 28, 10], [2, 12, 6]])
    assert round(found.kappa, 3) == 0.429
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(0.0537, abs=0.0001)


def test_kappa_gives_bonett_s_example() -> None:
    """Bonett, statpsych (R), ci.kappa(.05, 31, 12, 4, 58), by Fleiss and Paik 2003: .6757, .5317, .8196."""
    found = cohen_kappa([[31, 12], [4, 58]])
    assert [round(value, 4) for value in (found.kappa, found.low, found.high)] == [0.6757, 0.5317, 0.8196]
    assert float(found) == found.kappa
    assert found.to_json()["n"] == 105


CELLS = st.lists(st.integers(1, 50), min_size=4, max_size=4)


@given(CELLS)
def test_kappa_does_not_ask_which_rater_or_category_is_first(cells: list[int]) -> None:
    a, b, c, d = cells
    found = cohen_kappa([[a, b], [c, d]])
    assert -1 <= found.low <= found.kappa <= found.high <= 1
    for other in ([[a, c], [b, d]], [[d, c], [b, a]]):
        assert cohen_kappa(other).kappa == pytest.approx(found.kappa)
    assert (found.kappa > 1e-12) == (a * d > b * c)


def test_few_agreements_are_no_certainty() -> None:
    few, many = cohen_kappa([[5, 0], [0, 5]]), cohen_kappa([[500, 0], [0, 500]])
    assert few.kappa == many.kappa == many.high == 1
    assert few.low < 0.5 < 0.99 < many.low


def test_a_category_that_nobody_used_changes_nothing() -> None:
    assert cohen_kappa([[31, 12, 0], [4, 58, 0], [0, 0, 0]]) == cohen_kappa([[31, 12], [4, 58]])


@pytest.mark.parametrize("table", [[[1]], [[1, 2]], [[1, 2], [3]], [[1, -1], [1, 1]]])
def test_what_is_no_table_of_counts_is_refused(table: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="agreement needs a square table of counts"):
        cohen_kappa(table)


@pytest.mark.parametrize("table", [[[0, 0], [0, 0]], [[3, 0], [2, 0]], [[3, 2], [0, 0]]])
def test_a_rater_who_says_one_thing_agrees_by_chance_only(table: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="two raters who each use two categories"):
        cohen_kappa(table)


P_VALUES = st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=12)
Adjustment = Callable[[Mapping[str, float]], dict[str, float]]


def test_holm_gives_the_published_example() -> None:
    """Wikipedia, Holm–Bonferroni method, example: of .01, .04, .03 and .005 the first and the last
    are rejected at 5 %, the adjusted p being .03, .06, .06 and .02."""
    found = holm({"one": 0.01, "two": 0.04, "three": 0.03, "four": 0.005})
    assert found == pytest.approx({"one": 0.03, "two": 0.06, "three": 0.06, "four": 0.02})
    assert [name for name, p in found.items() if p <= 0.05] == ["one", "four"]


def test_holm_rejects_what_his_thresholds_reject() -> None:
    """Holm, 1979, section 3: p₍ᵢ₎ against α / (m − i + 1), in order, until the first that is larger."""
    raw = {"a": 0.001, "b": 0.013, "c": 0.012, "d": 0.9, "e": 0.02}
    found, rejected = holm(raw), set()
    for i, (name, p) in enumerate(sorted(raw.items(), key=lambda each: each[1])):
        if p > 0.05 / (len(raw) - i):
            break
        rejected.add(name)
    assert rejected == {name for name, p in found.items() if p <= 0.05} == {"a", "b", "c", "e"}


def at_least_raw_and_monotone(adjust: Adjustment, raw: Mapping[str, float]) -> None:
    found = adjust(raw)
    assert list(found) == list(raw)
    ordered = sorted(raw, key=lambda name: raw[name])
    assert all(raw[name] <= found[name] + 1e-15 and found[name] <= 1 for name in raw)
    assert all(found[a] <= found[b] for a, b in pairwise(ordered))
    if raw:
        assert found[ordered[0]] == pytest.approx(min(1.0, len(raw) * raw[ordered[0]]))


@settings(deadline=None, max_examples=20)
@given(P_VALUES)
def test_holm_s_laws(raw: dict[str, float]) -> None:
    at_least_raw_and_monotone(holm, raw)


def stepwise_without_the_maximum(raw: Mapping[str, float]) -> dict[str, float]:
    order = sorted(raw, key=lambda name: raw[name])
    return {name: min(1.0, raw[name] * (len(raw) - order.index(name))) for name in raw}


@pytest.mark.parametrize("broken", [dict, stepwise_without_the_maximum])
def test_a_broken_adjustment_is_caught(broken: Adjustment) -> None:
    with pytest.raises(AssertionError):
        at_least_raw_and_monotone(broken, {"a": 0.02, "b": 0.03, "c": 0.04})


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"a p value must be in \[0, 1\], got .* for vcr"):
        holm({"prv": 0.5, "vcr": p})


def test_a_ratio_of_means_has_the_interval_of_scipy_s_bootstrap() -> None:
    part, whole = [0.5, 0.6, 0.2, 0.0] * 20, [0.7, 0.5, 0.4, 0.3] * 20
    found = paired_ratio(part, whole, seed=1)
    assert found is not None
    assert found.ratio == pytest.approx(sum(part) / sum(whole))
    assert found.n == 80
    theirs = bootstrap(
        (np.array(part), np.array(whole)),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert paired_ratio(part[::-1], whole[::-1], seed=1) == found


def test_a_ratio_that_no_resample_moves_still_has_a_width() -> None:
    same = paired_ratio([1.0] * 50, [1.0] * 50, seed=0)
    none = paired_ratio([0.0] * 40, [0.5, 1.0] * 20, seed=0)
    assert same is not None
    assert none is not None
    assert same.low == pytest.approx(1 - 0.0713, abs=1e-3)
    assert same.high == pytest.approx(1 / (1 - 0.0713), abs=1e-3)
    assert none.ratio == none.low == 0 < none.high < 0.2


def test_there_is_no_ratio_to_nothing() -> None:
    assert paired_ratio([], [], seed=0) is None
    assert paired_ratio([1.0, 0.5], [0.0, 0.0], seed=0) is None
    assert paired_ratio([1.0, 0.0], [0.0, 1.0], seed=0) is None
    for part, whole in (([0.5], []), ([1.5], [1.0]), ([float("nan")], [1.0])):
        with pytest.raises(ValueError, match=r"pairs must be two values in \[0, 1\] each"):
            paired_ratio(part, whole, seed=0)


def test_a_mean_of_any_values_has_the_interval_of_a_paired_difference() -> None:
    values = [0.0, 0.2, 0.9, 1.0, 0.4, 0.4]
    mean, paired = bootstrap_mean(values, 3), paired_bootstrap([0.0] * 6, values, 3)
    assert (mean.mean, mean.low, mean.high, mean.n) == (paired.difference, paired.low, paired.high, 6)
    turned = bootstrap_mean([-40 * value for value in values], 3)
    assert turned.mean == pytest.approx(-40 * mean.mean)
    assert turned.low < turned.mean < turned.high <= 0
    assert bootstrap_mean([2.0, 2.0], 0).to_json() == {"mean": 2.0, "low": 2.0, "high": 2.0, "n": 2}
    with pytest.raises(ValueError, match="two values or more, got 1"):
        bootstrap_mean([2.0], 0)
