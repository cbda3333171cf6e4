"""Laws of the wrappers: the question is inside, and nothing but words are around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.evaluation.wrappers import WRAPPERS

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=12)


@pytest.mark.parametrize("name", WRAPPERS)
@given(words=WORDS)
def test_every_word_of_the_prompt_is_inside(name: str, words: list[str]) -> None:
    wrapped = WRAPPERS[name](" ".join(words)).split()
    for word in set(words):
        assert sum(part.strip(".:?") == word for part in wrapped) >= words.count(word)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_changes_a_prompt_and_always_in_the_same_way(name: str) -> None:
    prompt = "what is the dose of it"
    assert WRAPPERS[name](prompt) == WRAPPERS[name](prompt) != prompt
