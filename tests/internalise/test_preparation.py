"""Laws of crossed prompts: whole templates, words of the two prompts only, their labels."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from palette.backbones import shared
from palette.internalise.examples import Example
from palette.internalise.preparation import crossed

BEFORE, AFTER = (1, 2, 3), (4, 5)
CONTENTS = st.lists(
    st.lists(st.integers(10, 99), min_size=1, max_size=8), min_size=2, max_size=8, unique_by=tuple
)


def examples(contents: list[list[int]]) -> list[Example]:
    return [
        Example((*BEFORE, *inside, *AFTER), (200 + i,), False, i % 2 == 0)
        for i, inside in enumerate(contents)
    ]


def inside(example: Example) -> tuple[int, ...]:
    assert example.prompt[: len(BEFORE)] == BEFORE
    assert example.prompt[-len(AFTER) :] == AFTER
    return example.prompt[len(BEFORE) : -len(AFTER)]


@given(CONTENTS, st.integers(0, 20), st.integers(0, 5))
def test_a_crossed_prompt_begins_as_one_and_ends_as_another(contents, count, seed):
    found = crossed(examples(contents), count, Random(seed))
    assert len(found) == count
    assert found == crossed(examples(contents), count, Random(seed))
    parents = {tuple(content): i for i, content in enumerate(contents)}
    for example in found:
        words = inside(example)
        (last,) = [i for i in parents.values() if example.reply == (200 + i,)]
        cuts = range(len(words) + 1)
        assert any(
            words[cut:] == tuple(contents[last])[len(contents[last]) - (len(words) - cut) :]
            and any(words[:cut] == tuple(other)[:cut] for i, other in enumerate(contents) if i != last)
            for cut in cuts
        )
        assert (example.taught, example.floor) == (False, last % 2 == 0)


def test_one_prompt_cannot_be_crossed():
    assert crossed(examples([[10]]), 5, Random(0)) == []


def test_shared_counts_what_all_begin_with():
    assert shared([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert shared([[1], [2]]) == 0
