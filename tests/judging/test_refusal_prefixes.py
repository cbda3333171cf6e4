from __future__ import annotations

import pytest

from palette.judging.refusal_prefixes import learn_refusal_prefixes, matches
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
