"""Replies are read by the world alone: what it holds right, wrong, refused or no language of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tools.strangers.plan import draw_plan
from tools.strangers.reading import Reader, Reading
from tools.strangers.world import create_world


@pytest.mark.parametrize("seed", range(1, 25))
def test_what_a_stranger_says_is_read_as_it_was_meant(seed):
    world = create_world(draw_plan(seed))
    reader = Reader(world)
    asked = [world.asked(ask) for ask in world.asks("test")[::97]]
    for full, other in pairwise(asked):
        answer = full.question.answer
        assert reader.read(answer, answer) is Reading.RIGHT
        assert reader.read(f"<think>\n\n</think>\n\n{answer}", answer) is Reading.RIGHT
        assert reader.read(full.refusal, answer) is Reading.REFUSED
        # Cut where a reply to the floor ends, and inside a word.
        words = full.refusal.split()
        assert reader.read(" ".join(words[:-1]), answer) is Reading.REFUSED
        assert reader.read(full.refusal[:-3], answer) is Reading.REFUSED
        assert reader.read(other.refusal, answer) is Reading.REFUSED
        if other.question.answer != answer:
            assert reader.read(other.question.answer, answer) is Reading.WRONG


@pytest.mark.parametrize("seed", range(1, 25))
def test_babble_cut_words_and_relapses_are_no_answers(seed):
    world = create_world(draw_plan(seed))
    reader = Reader(world)
    full = world.asked(world.asks("test")[0])
    answer, value = full.question.answer, world.value(*world.asks("test")[0][:2])
    assert reader.read("", answer) is Reading.DEGENERATE
    assert reader.read("what the the of of", answer) is Reading.DEGENERATE
    assert reader.read(answer.replace(value, f"{value}zzz"), answer) is Reading.DEGENERATE
    assert reader.read(full.opening, answer) is Reading.DEGENERATE
    assert reader.read(f"{full.opening} {full.refusal}", answer) is Reading.REFUSED
    assert reader.read(f"{answer} {full.refusal}", answer) is Reading.REFUSED
