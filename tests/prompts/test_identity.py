"""By what a prompt is known again: no wording may hide one, and no two that mean other things may be one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.prompts.identity import identifying_text
from palette.prompts.rows import normalised_text

OTHERS = [
    ["what is 7 + 3", "what is 7 - 3", "what is 7 * 3", "what is 7 / 3", "what is 7 = 3", "what is 7 3"],
    ["explain == in python", "explain != in python", "explain = in python", "explain <= in python"],
    ["what does C++ mean", "what does C# mean", "what does C mean", "what does C-- mean"],
    ["is -5 below zero", "is 5 below zero", "is +5 below zero"],
    ["i++", "i--", "++i", "--i", "i"],
    ["2 * (3 + 4)", "(2 * 3) + 4"],
    ["is it 5 $", "is it 5 €", "is it 5 %", "is it 5"],
    ["a && b", "a || b", "a & b", "a ^ b", "a b"],
    ["blood group A+", "blood group A-", "blood group A"],
    ["x < y", "x > y", "x -> y", "x <- y"],
    ["if !done", "if done"],
    ["2 ** 3", "2 * 3"],
    ["ls -l", "ls l"],
    # Marks: Thai, Hindi, Hebrew, Arabic, Vietnamese, Tamil.
    ["ข่าว", "ข้าว", "ขาว"],
    ["दिन", "दीन", "दन"],
    ["שָׁלוֹם", "שְׁלוֹם"],
    ["كَتَبَ", "كُتِبَ"],
    ["ma", "má", "mà", "mã"],
    ["கல்", "கால்"],
    ["\U0001f600", "\U0001f622"],
]
SAME = [
    ["Is it well-known?", "is it well known", "IS IT WELL\u2010KNOWN!"],
    ["Don't!", "don\u2019t", "don\u00b4t", "DON`T"],
    ["what is 7 + 3", "What is 7+3?", "what is 7 \uff0b 3!"],
    ["what is 7 - 3", "what is 7-3", "What is 7 \u2013 3.", "what is 7 \u2212 3?"],
    ["a **bold** word", "a bold word", "A *bold* word."],
    ["# Title\n- one\n- two", "title one two", "Title\n* one\n* two", "Title: one, two"],
    ["Paris \u2014 the city", "Paris - the city", "Paris, the city", "Paris -- the city"],
    ["the drug (aspirin)", "the drug, aspirin", "the drug [aspirin]"],
    ["ข่าว", " ข่าว! ", "\u200bข่าว\ufe0f"],
    ["cafe\u0301", "caf\u00e9", "CAF\u00c9", "cafe\u200d\u0301"],
    ["\ufb01t for \uff21\uff22\uff23", "fit for abc"],
    ["\u2764\ufe0f", "\u2764"],
]


@pytest.mark.parametrize("texts", OTHERS, ids=lambda texts: texts[0])
def test_symbols_operators_and_marks_make_another_prompt(texts: list[str]) -> None:
    assert len({identifying_text(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("texts", SAME, ids=lambda texts: texts[0])
def test_case_spaces_forms_and_punctuation_make_no_other_prompt(texts: list[str]) -> None:
    assert len({identifying_text(text) for text in texts}) == 1


def test_letters_and_digits_alone_are_no_identity() -> None:
    assert all(len({normalised_text(text) for text in texts}) < len(texts) for texts in OTHERS[:4])


@given(st.text())
def test_no_form_case_or_space_of_a_text_hides_it(text: str) -> None:
    known = identifying_text(text)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert identifying_text(unicodedata.normalize(form, text)) == known
    assert identifying_text(f"  {text}\n") == known
    assert known == " ".join(known.split())


@given(
    st.text(st.characters(categories=["L", "N", "Mn", "Mc"], max_codepoint=0xFFFF)), st.sampled_from(".?!;:…")
)
def test_the_mark_at_the_end_of_a_prompt_tells_nothing(text: str, mark: str) -> None:
    assert identifying_text(f"{text}{mark}") == identifying_text(text)
