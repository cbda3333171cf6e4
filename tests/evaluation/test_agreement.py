"""How far two replies agree in meaning: the measure's laws, and broken ones that these catch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.evaluation.agreement import (
    Agreement,
    Reply,
    Way,
    agreement,
    content_words,
    covered,
    shared_words,
    stem,
)

Measure = Callable[[str, Reply, Reply], Agreement]

OPEN = "Tell me about the zoo."
CHOICES = "Which one is striped?\nA. the lion\nB. the zebra\nC. the bear"
COUNT = "How many zebras are there?"
REQUESTS = st.sampled_from([OPEN, CHOICES, COUNT, "Is it open? Answer yes or no.", ""])
TEXTS = st.lists(
    st.sampled_from(
        ["the", "zebra", "zebras", "A", "B.", "(C)", "no", "yes", "12", "1,200", "50 %", "answer", "is", ".",
         "=", "eats", "well-fed", "it's", "grass", "twelve", "\n", "<think>", "**bear**"]
    ),
    max_size=12,
).map(" ".join)  # fmt: skip
REPLIES = st.builds(Reply, TEXTS | st.text(max_size=40), st.booleans())


@given(REQUESTS, REPLIES, REPLIES)
def test_it_is_a_share_the_same_in_either_order_and_whole_of_a_reply_with_itself(
    request: str, first: Reply, second: Reply
) -> None:
    found = agreement(request, first, second)
    assert 0 <= found.value <= 1
    assert found == agreement(request, second, first)
    assert agreement(request, first, first).value == 1
    assert agreement(request, first, replace(first, cut=not first.cut)).value == 1


@given(st.lists(st.sampled_from(["zebras", "lion", "grass", "not", "eats", "the", "12"]), max_size=9))
def test_case_punctuation_and_marks_around_words_change_nothing(said: list[str]) -> None:
    plainly, loudly = Reply(" ".join(said)), Reply("! ".join(f"**{word.upper()}**," for word in said))
    other = Reply("Lions eat grass.")
    assert agreement(OPEN, plainly, other) == agreement(OPEN, loudly, other)


def laws(measure: Measure) -> None:
    """What any such measure must do on a handful of pairs."""
    long = "Zebras eat grass, and they live in herds that walk a long way to the water."
    short = Reply("Zebras eat grass.")
    value = lambda request, *pair: measure(request, *(Reply(one) for one in pair)).value  # noqa: E731
    assert value(OPEN, "Zebras eat grass.", "ZEBRAS, eat... grass") == 1
    assert value(OPEN, "Zebras eat grass.", "Bears sleep.") == 0
    assert value(OPEN, long, "Zebras eat grass.") == value(OPEN, "Zebras eat grass.", long) < 0.6
    assert measure(OPEN, replace(short, cut=True), Reply(long)).value == 1
    assert value(CHOICES, "B. Its stripes tell, and nothing else.", "It is the zebra") == 1
    assert value(CHOICES, "The answer is B, the zebra", "The answer is A, the zebra") == 0
    assert value(COUNT, "There are 12 zebras", "Twelve.") == 1
    assert value(COUNT, "There are 12 zebras", "There are 13 zebras") == 0


def test_the_measure_keeps_its_laws() -> None:
    laws(agreement)


def recall(request: str, first: Reply, second: Reply) -> Agreement:
    return Agreement(covered(first.text, second.text), Way.WORDS)


def always(request: str, first: Reply, second: Reply) -> Agreement:
    return Agreement(1.0, Way.WORDS)


def as_written(request: str, first: Reply, second: Reply) -> Agreement:
    return Agreement(float(first.text == second.text), Way.WORDS)


def words_alone(request: str, first: Reply, second: Reply) -> Agreement:
    return Agreement(shared_words(first, second), Way.WORDS)


def first_words_alone(request: str, first: Reply, second: Reply) -> Agreement:
    return agreement(request, replace(first, cut=True), replace(second, cut=True))


@pytest.mark.parametrize("broken", [recall, always, as_written, words_alone, first_words_alone])
def test_a_broken_measure_is_caught(broken: Measure) -> None:
    with pytest.raises(AssertionError):
        laws(broken)


def test_it_says_how_it_measured() -> None:
    assert agreement(CHOICES, Reply("A"), Reply("A")).way is Way.OPTION
    assert agreement(COUNT, Reply("12"), Reply("12")).way is Way.NUMBER
    assert agreement(COUNT, Reply("12"), Reply("Nobody knows")).way is Way.WORDS
    assert agreement(CHOICES, Reply("A"), Reply("Neither")).way is Way.WORDS


def test_a_denial_is_a_word_that_counts() -> None:
    assert 0 < agreement(OPEN, Reply("Zebras can't swim"), Reply("Zebras can swim")).value < 1
    assert content_words("It isn't the cause") == ["not", "caus"]


def test_thoughts_are_no_part_of_a_reply() -> None:
    assert agreement(OPEN, Reply("<think>bears</think>Zebras eat"), Reply("Zebras eat")).value == 1


def test_replies_of_function_words_or_of_nothing_are_compared_as_they_stand() -> None:
    assert agreement(OPEN, Reply("It is."), Reply("It is")).value == 1
    assert agreement(OPEN, Reply("It is."), Reply("They were.")).value == 0
    assert agreement(OPEN, Reply(""), Reply("")).value == 1
    assert agreement(OPEN, Reply(""), Reply("Zebras")).value == 0


@pytest.mark.parametrize(
    "forms",
    ["cause causes caused causing", "study studies", "stop stopped stopping", "pass passes", "bleed bleeding",
     "take takes taking", "treat treats treated treating"],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(word) for word in forms.split()}) == 1


@pytest.mark.parametrize("word", ["virus", "gas", "diagnosis", "red", "string", "12", "b12"])
def test_what_only_looks_like_an_ending_stays(word: str) -> None:
    assert stem(word) == word


def test_a_fact_is_covered_by_the_share_of_its_words() -> None:
    assert covered("Zebras eat grass", "The grass is what a zebra eats.") == 1
    assert covered("Zebras eat grass", "Zebras drink") == pytest.approx(1 / 3)
    assert covered("It is.", "") == 1


def test_the_measure_imports_no_torch() -> None:
    code = "import sys, palette.evaluation.agreement; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
