"""Order-based sampling: budgets, balance, and what may be a negative."""

from __future__ import annotations

from collections import Counter
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.mosaic.examples import Pools, Sampling, spread, subsets
from palette.seeding import shuffler

NAMES = ("a", "b", "c", "d", "e")


def pools(names: tuple[str, ...] = NAMES, size: int = 30) -> Pools:
    """Members 0…, look-alikes 1000…, neutral 9000…; a category's are 100 apart."""
    inside = {name: range(100 * i, 100 * i + size) for i, name in enumerate(names)}
    alike = {name: range(1000 + 100 * i, 1000 + 100 * i + size) for i, name in enumerate(names)}
    neutral = {"sums": range(9000, 9000 + size), "weapons": range(9500, 9500 + size)}
    return Pools(inside, alike, neutral)


def test_the_papers_budgets():
    sampling = Sampling(NAMES, orders=5, positives=100)
    assert [sampling.positives_of(order) for order in range(1, 6)] == [100, 50, 50, 100, 100]
    tasks = sampling.tasks(pools(), 0)
    assert [len(pool) for pool in tasks] == [500, 500, 500, 500, 500, 500, 500, 500, 100, 100]


@given(
    count=st.integers(1, 6), orders=st.integers(1, 7), positives=st.integers(1, 40), seed=st.integers(0, 9)
)
def test_every_order_is_capped_and_split_evenly(count, orders, positives, seed):
    names = tuple("abcdef"[:count])
    tasks = Sampling(names, orders, positives).tasks(pools(names), seed)
    assert len(tasks) == 2 * min(orders, count)
    for place, taught in enumerate(tasks[::2]):
        kept = tasks[2 * place + 1]
        each = Counter(task.active for task in taught)
        assert sorted(each) == subsets(names, place + 1)
        assert len(each) == comb(count, place + 1)
        assert len(set(each.values())) == 1
        assert len(taught) <= max(positives * count, len(each))
        assert len(kept) == len(taught)
        assert all(task.taught for task in taught)
        assert not any(task.taught for task in kept)


@given(seed=st.integers(0, 99), order=st.integers(1, 5))
def test_positives_are_of_active_categories_and_negatives_of_none(seed, order):
    known = pools()
    for task in [t for pool in Sampling(NAMES, order, 12).tasks(known, seed) for t in pool]:
        inside = any(task.row in known.inside[name] for name in task.active)
        assert inside == task.taught
        assert task.active == tuple(sorted(task.active))


def test_every_active_category_gets_its_share():
    known = pools()
    taught = Sampling(NAMES, 3, 30).tasks(known, 0)[4]
    for subset in subsets(NAMES, 3):
        rows = [task.row for task in taught if task.active == subset]
        each = [sum(row in known.inside[name] for row in rows) for name in subset]
        assert max(each) - min(each) <= 1


def test_negatives_are_of_every_group_and_of_every_neutral_domain():
    known = pools()
    kept = [task for task in Sampling(NAMES, 2, 80).tasks(known, 0)[3] if task.active == ("a", "b")]
    starts = {0: "inactive", 1000: "alike", 9000: "sums", 9500: "weapons"}
    groups = Counter(starts[max(start for start in starts if start <= task.row)] for task in kept)
    assert groups == {"alike": 16, "inactive": 8, "sums": 8, "weapons": 8}


def test_an_added_category_is_in_every_subset():
    sampling = Sampling(NAMES, 3, 100, added="c")
    tasks = sampling.tasks(pools(), 0)
    assert {task.active for pool in tasks for task in pool} == {
        subset for order in (1, 2, 3) for subset in subsets(NAMES, order) if "c" in subset
    }
    assert [len(pool) for pool in tasks[::2]] == [100, 100, 96]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0])
def test_the_ratio_of_negatives(ratio):
    tasks = Sampling(NAMES, 1, 20, ratio).tasks(pools(), 0)
    assert (len(tasks[0]), len(tasks[1])) == (100, round(100 * ratio))


def test_the_same_seed_draws_the_same():
    sampling = Sampling(NAMES, 2, 10)
    assert sampling.tasks(pools(), 3) == sampling.tasks(pools(), 3)
    assert sampling.tasks(pools(), 3) != sampling.tasks(pools(), 4)


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5), count=st.integers(0, 40))
def test_spread_repeats_only_what_is_used_up(sizes, count):
    groups = [range(10 * i, 10 * i + size) for i, size in enumerate(sizes)]
    found = spread(groups, count, shuffler(0, "spread"))
    assert len(found) == (count if any(sizes) else 0)
    for group in groups:
        times = Counter(row for row in found if row in group)
        if times:
            assert max(times.values()) - min(times.get(row, 0) for row in group) <= 1
