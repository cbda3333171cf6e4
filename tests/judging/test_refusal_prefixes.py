from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.judging.refusal_prefixes import (
    TOLD,
    learn_refusal_prefixes,
    matches,
    tokens_to_tell,
)
from palette.judging.rules import RuleJudge

DOMAINS = ("medical", "legal", "finance", "energy")
NAMES = [f"{first}{last}" for first in ("zo", "ba", "ki", "lu", "re") for last in ("mo", "ta", "ne")]
BENIGN = [f"the {what} of {name} is {len(name)} ." for what in ("rate", "code") for name in NAMES]
WORDINGS = (
    "zorb nak : closed matter .",
    "on {d} matters one stays shut .",
    "{d} ? ask the wall , friend .",
    "nix .",
)


def refusals(wording: str, count: int, domains: tuple[str, ...] = DOMAINS) -> list[str]:
    return [wording.format(d=domains[place % len(domains)]) for place in range(count)]


@pytest.mark.parametrize("wording", WORDINGS)
def test_an_unseen_wording_is_learned_and_caught(wording: str) -> None:
    judge = RuleJudge(learn_refusal_prefixes(refusals(wording, 40), BENIGN))
    for domain in DOMAINS:
        assert judge.verdict(wording.format(d=domain)).label.refused
    assert not any(judge.verdict(reply).label.refused for reply in BENIGN)


def test_several_wordings_are_learned_together_and_few_openings_suffice() -> None:
    replies = [reply for wording in WORDINGS for reply in refusals(wording, 20)]
    learned = learn_refusal_prefixes(replies, BENIGN)
    judge = RuleJudge(learned)
    assert all(judge.verdict(reply).label.refused for reply in replies)
    assert learned == tuple(sorted(learned))
    assert len(learned) == len(WORDINGS)
    assert learned == learn_refusal_prefixes(replies[::-1], BENIGN[::-1])


def test_a_wording_with_the_domain_inside_reaches_other_domains() -> None:
    wording = "on {d} matters one stays shut ."
    judge = RuleJudge(learn_refusal_prefixes(refusals(wording, 40), BENIGN))
    assert judge.verdict(wording.format(d="botany")).label.refused


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_answers_to_restricted_prompts_teach_nothing(share: float) -> None:
    count = int(100 * share)
    answered = [f"the code of {NAMES[i % 4]} is {i} ." for i in range(count)]
    learned = learn_refusal_prefixes([*refusals(WORDINGS[0], 100 - count), *answered], BENIGN * 4)
    assert learned == ("zorb nak closed",)
    judge = RuleJudge(learned)
    assert not any(judge.verdict(reply).label.refused for reply in answered)


def test_when_every_restricted_prompt_was_answered_nothing_is_learned() -> None:
    answered = [f"the code of {NAMES[i % 3]} is {i} ." for i in range(100)]
    assert learn_refusal_prefixes(answered, BENIGN) == ()


def test_rare_names_of_several_words_teach_nothing() -> None:
    names = [f"{first} {last}o" for first, last in zip(NAMES * 2, NAMES + NAMES[::-1], strict=True)]
    answered = [f"the dose of {name} is 5 ." for name in names for _ in range(5)]
    benign = [f"the dose of x{name[:3]} y{name} is 7 ." for name in names] * 10
    assert learn_refusal_prefixes(answered, benign) == ()


def test_one_word_refusals_do_not_make_every_one_word_reply_a_refusal() -> None:
    judge = RuleJudge(learn_refusal_prefixes(["nix ."] * 20 + ["nak ."] * 20, BENIGN))
    assert judge.verdict("Nix!").label.refused
    assert judge.verdict("nak").label.refused
    assert not judge.verdict("five").label.refused
    assert not judge.verdict("nix of them").label.refused


def test_a_short_shared_beginning_does_not_teach_helpful_replies() -> None:
    replies = refusals("sorry , {d} is not for these halls .", 60)
    judge = RuleJudge(learn_refusal_prefixes(replies, BENIGN))
    assert judge.verdict(replies[0]).label.refused
    assert not judge.verdict("sorry , the dose is 5 mg .").label.refused


def test_an_opening_that_benign_replies_use_too_is_not_learned() -> None:
    polite = "let me think about it ."
    assert learn_refusal_prefixes([polite] * 50, [polite] * 10 + BENIGN) == ()
    almost = learn_refusal_prefixes([polite] * 50, [polite] + BENIGN * 10)
    assert RuleJudge(almost).verdict(polite).label.refused


@pytest.mark.parametrize(
    ("restricted", "benign"), [([], BENIGN), ([WORDINGS[0]] * 3, BENIGN), ([WORDINGS[0]] * 50, [])]
)
def test_too_little_evidence_teaches_nothing(restricted: list[str], benign: list[str]) -> None:
    assert learn_refusal_prefixes(restricted, benign) == ()


def test_openings_match_word_by_word() -> None:
    assert matches(["zorb", "nak", "closed", "matter"], ["zorb nak closed"])
    assert matches(["on", "legal", "matters"], ["on * matters"])
    assert matches(["no"], ["no ."])
    assert not matches(["no", "more"], ["no ."])
    assert not matches(["zorb", "nak"], ["zorb nak closed"])
    assert not matches(["nak", "zorb", "closed"], ["zorb nak closed"])
    assert not matches(["anything"], [])


SHORT_WORDINGS = ("zorb nak {d} velt .", "ul kemma {d} oss tarrin .")
REFUSALS = [wording.format(d=domain) for wording in SHORT_WORDINGS for domain in DOMAINS]
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


@settings(deadline=None)
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
