from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.judging.normalisation import expanded, plain, sentences, words


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("I can’t", "i can't"),
        ("**Bold** and _soft_ and `code`", "bold and soft and code"),
        ("# Title\n- one\n* two\n> said", "title\none\ntwo\nsaid"),
        ("2*3*4 and snake_case_name", "2*3*4 and snake_case_name"),
        ("wide\u00a0 \tspace\u200b", "wide space"),
        ("“quoted” – \u22125", '"quoted" - -5'),
        ("\ufb01ne", "fine"),
        ("\n \n", ""),
    ],
)
def test_typography_is_set_aside(reply: str, text: str) -> None:
    assert plain(reply) == text


@settings(deadline=None)
@given(st.text())
def test_plain_text_is_left_as_it_is(reply: str) -> None:
    once = plain(reply)
    assert "\n\n" not in once
    assert once == once.strip()


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("i can't, cannot and cant", "i can not, can not and can not"),
        ("i won't; it isn't; we don't", "i will not; it is not; we do not"),
        ("i'm sure we're right, i'd say", "i am sure we are right, i would say"),
        ("it's what they've said they'll do", "it is what they have said they will do"),
        ("let's go to bob's", "let us go to bob's"),
        ("cantilever and wanton", "cantilever and wanton"),
    ],
)
def test_contractions_are_written_out(text: str, full: str) -> None:
    assert expanded(text) == full


def test_words_keep_inner_signs_and_lose_outer_ones() -> None:
    assert words("don't stop: 3.5 mg, zor-blat!") == ["don't", "stop", "3.5", "mg", "zor-blat"]
    assert words("不可以") == ["不", "可", "以"]
    assert words("...!?") == []


def test_sentences_end_at_stops_and_lines() -> None:
    assert sentences('one. "two!" three\nfour 3.5 five') == [
        "one.",
        '"two!',
        "three",
        "four 3.5 five",
    ]
    assert sentences("...\n!") == []
