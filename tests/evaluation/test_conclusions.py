"""Which option a reply chooses and which number it gives."""

from __future__ import annotations

import pytest

from palette.evaluation.conclusions import chosen, number, options, wants_number

DRINKS = {"a": "tea", "b": "coffee", "c": "a mixture"}


@pytest.mark.parametrize(
    "request_text",
    [
        "Which?\nA. tea\nB. coffee\nC. a mixture\nAnswer:",
        "Which?\n(A) tea\n(B) coffee\n(C) a mixture",
        "Which?\nA) tea\nB) coffee\nC) a mixture",
        "Which?\n[A] tea\n[B] coffee\n[C] a mixture",
        "Which?\nA: tea\nB: coffee\nC: a mixture",
        "**Which?**\n- **A)** tea\n- **B)** coffee\n- **C)** a mixture",
        "Which?\nOption A: tea\nOption B: coffee\nOption C: a mixture",
        "Which is hot: (a) tea, (b) coffee or (c) a mixture?",
        "Which is hot: A) tea B) coffee C) a mixture",
        "Which is hot: A. tea, B. coffee, C. a mixture?",
    ],
)
def test_options_are_read_in_common_notations(request_text: str) -> None:
    assert options(request_text) == DRINKS


def test_numbered_options_are_read_where_a_choice_is_asked_for() -> None:
    assert options("Choose one:\n1. tea\n2) coffee") == {"1": "tea", "2": "coffee"}
    assert options("Do this:\n1. boil\n2. pour") == {}


def test_words_of_which_one_is_wanted_are_options() -> None:
    assert list(options("Is it hot? Answer yes, no or maybe.")) == ["yes", "no", "maybe"]
    assert list(options('Is it hot ("yes"/"no")?')) == ["yes", "no"]


@pytest.mark.parametrize(
    "request_text",
    ["I have hepatitis A. My wife has hepatitis B.", "Is a tea hot?", "Only one:\nA. tea", "B. no\nA. a"],
)  # fmt: skip
def test_what_only_looks_like_options_is_none(request_text: str) -> None:
    assert options(request_text) == {}


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("B", "b"),
        ("b.", "b"),
        ("(B) coffee, since it is hot", "b"),
        ("**B) coffee**\n\nOption A is cold.", "b"),
        ("The answer is B because it is hot", "b"),
        ("The correct answer is: **C**.", "c"),
        ("The right option would be (A).", "a"),
        ("At first I choose A. No: the answer is B.", "b"),
        ("Option A is wrong. The answer is (B).", "b"),
        ("I would go with option A", "a"),
        ("Coffee.", "b"),
        ("A mixture, I think", "c"),
        ("A guest drinks coffee", "b"),
        ("The answer is a mixture", "c"),
        ("It must be (C)", "c"),
        ("<think>A</think>B", "b"),
        ("A or B", None),
        ("Tea or coffee", None),
        ("Water", None),
        ("", None),
    ],
)
def test_a_reply_chooses_by_letter_or_by_text(reply: str, choice: str | None) -> None:
    assert chosen(reply, DRINKS) == choice


@pytest.mark.parametrize(
    ("reply", "choice"),
    [("Yes, it is", "yes"), ("No.", "no"), ("The answer is no", "no"), ("It has no end", None), ("", None)],
)
def test_a_closed_question_is_answered_by_the_first_word(reply: str, choice: str | None) -> None:
    assert chosen(reply, {"yes": "yes", "no": "no"}) == choice


def test_an_option_s_text_inside_another_s_is_not_that_option() -> None:
    assert chosen("It is green tea", {"a": "tea", "b": "green tea"}) == "b"


@pytest.mark.parametrize(
    ("request_text", "wanted"),
    [
        ("How many cups?", True),
        ("What is the usual dose?", True),
        ("Calculate the total.", True),
        ("At what age?", True),
        ("What is tea?", False),
        ("How is tea made?", False),
    ],
)
def test_which_requests_want_a_number(request_text: str, wanted: bool) -> None:
    assert wants_number(request_text) is wanted


@pytest.mark.parametrize(
    ("reply", "other"),
    [
        ("1,234", "1234"),
        ("1 234 cups", "The answer is 1234."),
        ("50 %", "fifty per cent"),
        ("50 percent", "0.5"),
        ("500 mg", "0.5 g"),
        ("2 hours", "120 minutes"),
        ("3.14", "3.1"),
        ("12", "twelve"),
        ("twenty-five", "25"),
        ("2 million", "2,000,000"),
        ("First 3, then 4: the answer is 12", "12"),
        ("3 * 4 = 12", "12"),
        ("There were 3 and 4.\nSo there are 12 left.", "12"),
        ("2 + 10\n#### 12", "12"),
        (r"3 * 4 is \boxed{12}", "12"),
        ("12 cups, yes, 12 cups", "12"),
        ("$70,000", "70000"),
        ("-5", "-5.0"),
    ],
)
def test_one_number_in_two_notations_is_one(reply: str, other: str) -> None:
    first, second = number(reply), number(other)
    assert first is not None
    assert second is not None
    assert first.equals(second)
    assert second.equals(first)


@pytest.mark.parametrize(
    ("reply", "other"),
    [
        ("12", "13"),
        ("3.14", "3.15"),
        ("3.14", "3.2"),
        ("500 mg", "500 g"),
        ("5 g", "5 hours"),
        ("50 %", "0.6"),
    ],
)
def test_other_numbers_are_others(reply: str, other: str) -> None:
    first, second = number(reply), number(other)
    assert first is not None
    assert second is not None
    assert not first.equals(second)
    assert not second.equals(first)


@pytest.mark.parametrize(
    "reply", ["Take 500 to 1000 mg every 4 hours", "Vitamin B12", "It depends", "", "one never knows"]
)
def test_a_reply_without_a_conclusion_gives_no_number(reply: str) -> None:
    assert number(reply) is None
