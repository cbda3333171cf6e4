"""Laws of repetition: what is barred would say so many tokens again, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palette.internalise.repetition import REPEATING, least_barred, longest_repeat, repeating

TOKENS = st.lists(st.integers(1, 3), max_size=14)


def twice(tokens, size):
    """Whether so many tokens stand twice, by counting all of them."""
    parts = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    return len(parts) > len(set(parts))


@given(TOKENS)
def test_the_longest_repeat_stands_twice_and_nothing_longer_does(tokens):
    size = longest_repeat(tokens)
    assert size == 0 or twice(tokens, size)
    assert not any(twice(tokens, longer) for longer in range(size + 1, len(tokens) + 1))


@given(TOKENS, st.integers(1, 5))
def test_barred_tokens_are_those_that_say_so_many_again(tokens, size):
    ends = {token for token in range(1, 5) if longest_said_again([*tokens, token], size)}
    assert repeating(tokens, size) == ends


def longest_said_again(tokens, size):
    """Whether the last so many tokens stood before."""
    last = tokens[len(tokens) - size :]
    return len(tokens) > size and any(tokens[at : at + size] == last for at in range(len(tokens) - size))


@given(TOKENS)
def test_nothing_is_barred_where_nothing_is_known(tokens):
    assert repeating(tokens, 0) == frozenset()
    assert least_barred([]) == 0


def test_few_answers_say_what_is_barred_and_loops_among_them_change_nothing():
    answers = [(1, 2, 3, 1, 2, 4, 5)] * 38 + [(7, 8) * 20, (6,) * 40]
    size = least_barred(answers)
    assert size == 3
    assert sum(longest_repeat(answer) >= size for answer in answers) <= REPEATING * len(answers)
    assert repeating((1, 2, 3, 1, 2), size) == {3}
