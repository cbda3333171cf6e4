"""Prompts that nobody wrote: crossed of two, their frame whole, and taught only where their tokens say so."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import softplus

from palette.internalise.augmentation import (
    RIDGE,
    Frame,
    LikenessVote,
    crossed,
    crossed_alike,
    fitted_line,
)
from palette.internalise.examples import Example

BEFORE, AFTER = (1, 2, 3), (4, 5)
CONTENTS = st.lists(
    st.lists(st.integers(10, 99), min_size=1, max_size=8), min_size=2, max_size=8, unique_by=tuple
)


def made(contents: list[list[int]]) -> list[Example]:
    return [
        Example((*BEFORE, *inside, *AFTER), (200 + i,), False, floor=i % 2 == 0)
        for i, inside in enumerate(contents)
    ]


def inside(example: Example) -> tuple[int, ...]:
    assert example.prompt[: len(BEFORE)] == BEFORE
    assert example.prompt[-len(AFTER) :] == AFTER
    return example.prompt[len(BEFORE) : -len(AFTER)]


@given(CONTENTS, st.integers(0, 20), st.integers(0, 5))
def test_a_crossed_prompt_begins_as_one_and_ends_as_another(contents, count, seed):
    found = crossed(made(contents), count, Random(seed))
    assert len(found) == count
    assert found == crossed(made(contents), count, Random(seed))
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
    assert crossed(made([[10]]), 5, Random(0)) == []


@given(CONTENTS)
def test_a_frame_is_what_all_prompts_share_and_goes_around_any_content(contents):
    prompts = [example.prompt for example in made(contents)]
    frame = Frame.of(prompts)
    assert frame.before[: len(BEFORE)] == BEFORE
    assert frame.after[-len(AFTER) :] == AFTER
    assert [frame.around(frame.content(prompt)) for prompt in prompts] == prompts


TARGET = [(*BEFORE, 10, name, 20, *AFTER) for name in (30, 31, 32, 33, 34, 35)]
SAID = [(word, name, end) for name in (30, 40, 41, 42, 43) for word, end in ((11, 20), (10, 21))]
KEPT = [(*BEFORE, *content, *AFTER) for content in SAID]


def contents(prompts):
    return [prompt[len(BEFORE) : -len(AFTER)] for prompt in prompts]


def test_what_tells_targets_is_weighed_and_a_name_is_not():
    vote = LikenessVote(contents(TARGET), contents(KEPT))
    assert vote(contents(TARGET)) == [True] * len(TARGET)
    assert vote(contents(KEPT)) == [False] * len(KEPT)
    assert vote([(10, 43, 20), (11, 31, 20), (10, 31, 21), ()]) == [True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=4, max_size=12))
def test_a_line_is_where_the_loss_has_no_slope(rows):
    held = torch.tensor(rows, dtype=torch.float32)
    sides = torch.tensor([1.0, -1.0] * len(rows))[: len(rows)]
    weights, bias = fitted_line(held, sides)
    line = torch.cat([weights, bias[None]]).requires_grad_(True)
    shares = torch.where(sides > 0, 0.5 / (sides > 0).sum(), 0.5 / (sides < 0).sum())
    losses = softplus(-sides * (held @ line[:-1] + line[-1]))
    ((shares * losses).sum() + RIDGE * line[:-1].square().sum()).backward()
    assert line.grad.abs().max() < 1e-3


def test_a_target_prompt_is_crossed_where_its_own_words_stay():
    found = crossed_alike(TARGET, KEPT, 20, Random(0))
    assert found == crossed_alike(TARGET, KEPT, 20, Random(0))
    assert 0 < len(found) == len(set(found)) <= 20
    assert not set(found) & {*TARGET, *KEPT}
    assert all({10, 20} <= set(content) and not {11, 21} & set(content) for content in contents(found))
    assert {40, 41, 42, 43} & {token for prompt in found for token in prompt}, "under names no target has"


def test_where_nothing_tells_whose_a_prompt_is_none_is_crossed():
    assert crossed_alike(TARGET, TARGET, 20, Random(0)) == []
    assert crossed_alike([], KEPT, 20, Random(0)) == []
    assert crossed_alike(TARGET, [], 20, Random(0)) == []
    assert crossed_alike(TARGET, KEPT, 0, Random(0)) == []
