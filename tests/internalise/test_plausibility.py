"""Laws of plausibility: what a reply gains by its request, and which tokens would say it again."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.backbones.scoring import reply_likelihoods
from palette.internalise.examples import Example
from palette.internalise.plausibility import (
    LEAST,
    REPEATING,
    Pertinence,
    least_barred,
    longest_repeat,
    repeating,
)

REPLIES = [(40, 41), (42, 43), (44, 45)]
TOKENS = st.lists(st.integers(1, 3), max_size=14)


@pytest.fixture(scope="module")
def asked(backbone):
    requests = ("what is the dose ?", "tell me the clause .", "name the port .")
    return [tuple(backbone.render([{"role": "user", "content": each}])) for each in requests]


def gains_of(backbone, asked, replies):
    likely = reply_likelihoods(backbone, asked, replies)
    return Pertinence(backbone, 0.0).gains(asked, replies, likely, asked)


def test_a_gain_is_the_log_ratio_of_both_requests(backbone, asked):
    likely = reply_likelihoods(backbone, asked, REPLIES)
    gains = gains_of(backbone, asked, REPLIES)
    # The other request is the one that is half of three further.
    elsewhere = reply_likelihoods(backbone, [*asked[1:], asked[0]], REPLIES)
    assert gains == pytest.approx([own - other for own, other in zip(likely, elsewhere, strict=True)])
    # Whoever is asked about, the other request is one of all that there are.
    alone = Pertinence(backbone, 0.0).gains(asked[:1], REPLIES[:1], likely[:1], asked)
    assert alone == pytest.approx(gains[:1], abs=1e-5)


def test_the_least_gain_is_a_share_of_what_answers_gain(backbone, asked):
    def best(number: int) -> tuple[int]:
        """The token that a request makes likelier than the next one does."""
        every = [(token,) for token in range(30, 60)]
        one, other = asked[number], asked[(number + 1) % 3]
        own, elsewhere = (reply_likelihoods(backbone, [each] * len(every), every) for each in (one, other))
        return max(zip(own, elsewhere, every, strict=True), key=lambda each: each[0] - each[1])[2]

    replies = [best(number) for number in range(3)]
    answers = [Example(prompt, reply, False) for prompt, reply in zip(asked, replies, strict=True)]
    learned = Pertinence.learned(backbone, answers)
    assert learned is not None
    assert learned.least == pytest.approx(LEAST * median(gains_of(backbone, asked, replies)), rel=1e-4)


def test_answers_that_no_request_makes_likelier_tell_nothing(backbone, asked):
    assert Pertinence.learned(backbone, []) is None
    assert Pertinence.learned(backbone, [Example(asked[0], REPLIES[0], False)] * 5) is None


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
