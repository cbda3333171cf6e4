from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.seeding import derive_seed, evenly, shuffler, torch_seed

NAMES = st.lists(st.text(st.characters(min_codepoint=32), max_size=8) | st.integers(), max_size=4)
SEEDS = st.integers(0, 2**32)


@given(st.integers(0, 200), st.integers(1, 50))
def test_what_is_drawn_evenly_begins_with_the_first_and_leaves_no_wide_gap(count: int, most: int) -> None:
    drawn = evenly(range(count), most)
    assert len(drawn) <= most
    assert len(drawn) == count or count > most
    assert list(drawn[:1]) == [0][:count]
    gap = -(-count // most)
    assert {after - before for before, after in pairwise([*drawn, count])} <= set(range(1, gap + 1))


@given(SEEDS, NAMES)
def test_a_derived_seed_is_the_same_each_time_and_fits_63_bits(seed: int, names: list[object]) -> None:
    assert derive_seed(seed, *names) == derive_seed(seed, *names)
    assert 0 <= derive_seed(seed, *names) < 2**63


@given(SEEDS, NAMES.filter(bool), st.data())
def test_a_derived_seed_depends_on_every_name(seed: int, names: list[object], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(names) - 1))
    changed = [*names]
    changed[place] = f"{names[place]}!"
    assert derive_seed(seed, *changed) != derive_seed(seed, *names)


@given(SEEDS, NAMES)
def test_a_derived_seed_depends_on_the_seed_and_on_how_many_names_there_are(
    seed: int, names: list[object]
) -> None:
    assert derive_seed(seed + 1, *names) != derive_seed(seed, *names)
    assert derive_seed(seed, *names, "") != derive_seed(seed, *names)


def test_a_derived_seed_depends_on_the_order_and_the_borders_of_names() -> None:
    assert derive_seed(0, "a", "b") != derive_seed(0, "b", "a")
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")


def test_a_derived_seed_never_changes_between_versions() -> None:
    assert derive_seed(0, "search", 3) == 5791145732277144936


def test_named_generators_repeat_themselves_and_touch_no_global_one() -> None:
    before, numpy_before, torch_before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert shuffler(1, "a").random() == shuffler(1, "a").random() != shuffler(1, "b").random()
    assert random.getstate() == before
    assert np.array_equal(np.random.get_state()[1], numpy_before[1])
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_torch_draws_the_same_inside_equal_seeds_and_its_generator_is_restored() -> None:
    before = torch.get_rng_state()
    drawn = []
    for name in ("a", "a", "b"):
        with torch_seed(5, name):
            drawn.append(torch.rand(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_torchs_generator_is_restored_when_the_block_fails() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match=r"^inside$"), torch_seed(5):
        torch.rand(3)
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), before)
