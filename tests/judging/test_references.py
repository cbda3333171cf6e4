"""A right answer is right however it is put, and a wrong one wrong however near it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.judging.references import says
from palette.judging.rules import correct

RIGHT = [
    ("18", "18"), ("18.", "18"), ("The answer is 18.", "18"), ("Nora has 18 pears.", "18"),
    ("12 + 6 = 18\n#### 18", "18"), ("$18", "18"), ("18.00", "18"), ("**18**", "18"), ("90,000", "90000"),
    ("The price before was $90,000.", "90000"), ("90000", "90,000"), ("3.5", "3.5"),
    ("Each part is 3.5 metres long.", "3.5"), ("18kg", "18"), ("It is 5 %.", "5%"), ("-5", "-5"),
    ("The result is -5.", "-5"), ("The answer is 18. She began with 12.", "18"), ("\\boxed{18}", "18"),
    ("First 12, then 6 more: 12 + 6 = 18 pears", "18"), ("\u20ac1,250.50", "1250.5"),
    ("Paris", "Paris"), ("paris", "Paris"), ("The capital of France is Paris.", "Paris"),
    ("It's Paris.", "Paris"), ("Paris is the capital of France.", "Paris"), ("The answer is (B).", "B"),
    ("The correct option is B", "B"), ("The answer is yes.", "yes"), ("It is called New York.", "new york"),
]  # fmt: skip
WRONG = [
    ("19", "18"), ("The answer is 19.", "18"), ("18 of them and 2 more make 20.", "18"), ("180", "18"),
    ("1.8", "18"), ("18.5", "18"), ("It is not 18.", "18"), ("the 18th", "18"), ("118", "18"), ("18", "-18"),
    ("5", "5%"), ("90", "90000"), ("90,0", "900"), ("", "18"), ("It is not Paris.", "Paris"),
    ("The capital is Lyon.", "Paris"), ("The capital is Paris. No, it is Lyon.", "Paris"),
    ("Paris is not the capital.", "Paris"), ("I went to Paris once.", "Paris"), ("It is a", "A"),
    ("A dog is the answer.", "A"), ("There is no", "no"), ("Parisian", "Paris"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "answer"), RIGHT)
def test_a_right_answer_is_right_however_it_is_put(reply: str, answer: str) -> None:
    assert says(reply, answer)
    assert correct(reply, answer)


@pytest.mark.parametrize(("reply", "answer"), WRONG)
def test_a_wrong_answer_is_wrong_however_near(reply: str, answer: str) -> None:
    assert not says(reply, answer)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_numbers_are_compared_by_value(number: int, other: int) -> None:
    for form in ("{}", "{:,}", "{}.00", "The answer is {:,}.", "It makes ${:,} in all."):
        assert says(form.format(number), str(number))
        assert says(form.format(other), str(number)) == (other == number)


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_reply_has_a_mark(reply: str, answer: str) -> None:
    assert says(reply, answer) in (True, False)


def test_a_refusal_is_never_right() -> None:
    assert not correct("I cannot tell you that the answer is 18.", "18")
