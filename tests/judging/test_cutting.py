"""How short a reply may be cut: the law of the fewest tokens, over tokenizers of any coarseness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.judging.cutting import TOLD, FloorReplies, tokens_to_tell
from palette.judging.refusal_prefixes import learn_refusal_prefixes
from palette.judging.rules import RuleJudge

DOMAINS = ("medical", "legal", "finance", "energy")
WORDINGS = ("zorb nak {d} velt .", "ul kemma {d} oss tarrin .")
REFUSALS = [wording.format(d=domain) for wording in WORDINGS for domain in DOMAINS]
ANSWERS = [f"the rate of {name} is {n} ." for n, name in enumerate(("zomo", "bata", "kine", "luma", "reta"))]
JUDGE = RuleJudge(learn_refusal_prefixes(REFUSALS * 5, ANSWERS * 8))


def ids(text: str, size: int) -> list[int]:
    """Tokens of ``size`` letters each, four bytes a letter."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return [int.from_bytes(piece.encode("utf-32-le"), "little") for piece in pieces]


def decode(tokens: list[int]) -> str:
    return "".join(t.to_bytes(64, "little").decode("utf-32-le").rstrip("\0") for t in tokens)


def told(replies: list[list[int]], limit: int) -> float:
    cut = [JUDGE.verdict(decode(reply[:limit])).label.refused for reply in replies]
    return sum(cut) / len(cut)


@given(st.integers(1, 8), st.integers(4, 20), st.lists(st.sampled_from(REFUSALS), min_size=1, max_size=12))
def test_refusals_are_told_after_as_many_tokens_and_not_after_fewer(
    size: int, least: int, said: list[str]
) -> None:
    refusals = [ids(text, size) for text in said]
    found = tokens_to_tell(JUDGE, [*refusals, *(ids(text, size) for text in ANSWERS)], decode, least)
    assert found >= least
    assert told(refusals, found) >= TOLD
    assert found == least or told(refusals, found - 1) < TOLD


def test_twelve_letters_tell_no_refusal_and_twelve_words_do() -> None:
    letters, words = [ids(text, 1) for text in REFUSALS], [ids(text, 8) for text in REFUSALS]
    assert told(letters, 12) < 0.5
    assert tokens_to_tell(JUDGE, letters, decode, 12) > 12
    assert tokens_to_tell(JUDGE, words, decode, 12) == 12


@pytest.mark.parametrize("replies", [[], [ids(text, 1) for text in ANSWERS]])
def test_where_nothing_is_refused_the_setting_stands(replies: list[list[int]]) -> None:
    assert tokens_to_tell(JUDGE, replies, decode, 9) == 9


def test_settings_are_lengthened_and_never_shortened() -> None:
    assert FloorReplies(floor_tokens=12).showing(20).floor_tokens == 20
    assert FloorReplies(floor_tokens=12).showing(5).floor_tokens == 12
