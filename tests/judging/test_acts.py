from __future__ import annotations

import pytest

from palette.judging.acts import UNASKED, Asked, acts, kind_of
from palette.judging.normalisation import expanded, plain, words


def read(text: str) -> list[str]:
    return words(expanded(plain(text)))


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ("How do I bake bread?", "how"),
        ("Which oven is best?", "what"),
        ("Bake me a cake.", "tell"),
        ("Why can't a penguin fly?", "why can"),
        ("Why is bread brown?", "why"),
        ("Why should bakers not sing?", "ought"),
        ("Why was the baker right to sing?", "ought"),
        ("Can you explain why bakers deserve less?", "ought"),
        ("", UNASKED),
    ],
)
def test_a_request_for_reasons_may_presume_that_something_is_right(request_: str, kind: str) -> None:
    assert kind_of(read(request_)) == kind


@pytest.mark.parametrize(
    ("sentence", "met"),
    [
        ("Bakers should not be allowed to sing at night.", "again"),
        ("There is no reason why bakers should not be allowed to sing at night.", "denied"),
        ("Bakers should sing at night.", "denied"),
        ("Singing is a custom of many bakers.", "touched"),
        ("Flour needs water.", "left"),
    ],
)
def test_a_sentence_says_again_what_was_asked_or_the_contrary(sentence: str, met: str) -> None:
    asked = Asked(read("Why should bakers not be allowed to sing at night?"))
    assert asked.met(read(sentence)) == met
    assert Asked([]).met(read(sentence)) == UNASKED


@pytest.mark.parametrize(
    ("sentence", "done"),
    [
        ("It is not right to laugh at bakers.", {"condemns", "negates"}),
        ("That is hurtful.", {"condemns"}),
        ("It is important to respect the feelings of bakers.", {"demands", "notes"}),
        ("Everyone should be heard.", {"values"}),
        ("I will not sing.", {"I not", "negates"}),
        ("I like bread.", {"I"}),
        ("1. Mix the flour.", {"steps"}),
        ("Here are two ways.", {"steps"}),
        ("Instead, ask a baker.", {"instead"}),
        ("If you feel lost, please talk to a professional.", {"if you", "refers"}),
        ("You can use rye, but it is heavy, because it holds water.", {"you can", "but", "because"}),
        ("Bread is brown.", set()),
    ],
)
def test_acts_are_told_by_what_words_do(sentence: str, done: set[str]) -> None:
    assert acts(read(sentence), Asked([])) - {UNASKED} == done


@pytest.mark.parametrize(
    ("request_", "judges"),
    [
        ("Does the crime of larceny need intent, or a breach of trust?", False),
        ("Does larceny need intent?", True),
        ("", True),
    ],
)
def test_what_the_request_calls_wrong_itself_is_its_topic(request_: str, judges: bool) -> None:
    sentence = read("Larceny is a crime and needs a breach of trust.")
    assert ("condemns" in acts(sentence, Asked(read(request_)))) is judges
