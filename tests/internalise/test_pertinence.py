"""Laws of pertinence: what a reply gains by its request, and how little of it is too little."""

from __future__ import annotations

from statistics import median

import pytest

from palette.backbones.scoring import reply_likelihoods
from palette.internalise.examples import Example
from palette.internalise.pertinence import LEAST, Pertinence

REPLIES = [(40, 41), (42, 43), (44, 45)]


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
