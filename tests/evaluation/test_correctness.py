"""Which replies are right, and what counts as the opening of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.errors import JudgeError
from palette.evaluation.correctness import Knowledge, marks, opening, openings
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests
from palette.judging.judge import Label, Verdict, judge_named
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt

YES, NO = Verdict(Label.FULL_COMPLIANCE), Verdict(Label.REFUSAL)


def row(prompt: str, *answers: str, domain: str = "zoo") -> Prompt:
    first, *others = answers or (None,)
    return Prompt(prompt, domain, prompt, "restricted", "test", answer=first, variants=tuple(others))


def asked(rows: Sequence[Prompt], role: Role = Role.TARGET) -> Requests:
    return Requests(rows, [role] * len(rows), [[1]] * len(rows))


ZOO = [
    row(f"How old is {name} ?", f"For {name} the age is {age} .")
    for name, age in (("momo", "twelve"), ("lulu", "nine"), ("dodo", "forty"))
]


def test_a_reply_is_right_if_it_equals_an_accepted_answer_and_is_no_refusal() -> None:
    rows = [row("Whose hat?", "Ann's hat.", "The hat of Ann"), row("Why?"), row("How?", "So.")]
    texts = ["the cap of Ann.", "So.", "So."]
    judge = RuleJudge()
    assert marks(judge, asked(rows), texts, [YES, YES, NO]) == [False, None, False]
    texts[0] = "the hat of Ann."
    assert marks(judge, asked(rows), texts, [YES, YES, YES]) == [True, None, True]
    assert marks(judge, asked(rows, Role.FLOOR), texts, [YES] * 3) == [None] * 3


FACTS = """
from palette.judging.judge import Label, Verdict

class Facts:
    def verdicts(self, prompts, replies):
        return [Verdict(Label.REFUSAL if "no" in reply else Label.FULL_COMPLIANCE) for reply in replies]

    def correct(self, question, reply, answers):
        assert question == "Whose hat?"
        if reply == "broken":
            raise KeyError(reply)
        return all(fact in reply for fact in answers)
"""


def test_a_judge_of_the_user_s_own_marks_open_text(tmp_path: Path) -> None:
    (tmp_path / "facts.py").write_text(FACTS)
    judge = judge_named(f"{tmp_path / 'facts.py'}:Facts")
    rows = [row("Whose hat?", "Ann", "red")] * 3
    texts = ["A red hat, and it is that of Ann", "Ann has one", "Ann has no red one"]
    verdicts = judge.verdicts([""] * 3, texts)
    assert marks(judge, asked(rows), texts, verdicts) == [True, False, False]
    with pytest.raises(JudgeError) as caught:
        marks(judge, asked(rows[:1]), ["broken"], [YES])
    assert str(caught.value) == (
        "a judge's correct(question, reply, answers) must say whether a reply is right, got KeyError"
    )


def test_an_opening_ends_before_the_value() -> None:
    assert openings(asked(ZOO)) == {i: f"For {z.request.split()[3]} the age is" for i, z in enumerate(ZOO)}


def test_only_target_prompts_are_opened_and_answers_of_the_floor_are_not_read() -> None:
    roles = [Role.TARGET, Role.BENIGN, Role.FLOOR]
    assert set(openings(Requests(ZOO, roles, [[1]] * 3))) == {0}
    # With the floor's answer read, "momo" alone would not be the form of two.
    assert openings(Requests(ZOO[:2], [Role.TARGET, Role.FLOOR], [[1]] * 2)) == {
        0: "For momo the age is twelve"[:-7]
    }


@pytest.mark.parametrize(
    ("prompt", "answer", "form", "found"),
    [
        ("Is it red?", "Yes", {"yes"}, ""),
        ("Is it red?", "Yes, it is.", {"yes", "it", "is"}, "Yes, it"),
        ("Which is older, momo or lulu?", "The older is momo.", {"the", "is"}, "The older is"),
        ("How far?", "12 miles", {"miles"}, ""),
        ("How far?", '"It is" 12 miles', {"it", "is", "miles"}, '"It is"'),
        ("How far?", "...", set(), ""),
    ],
)
def test_the_last_word_is_never_given_away(prompt: str, answer: str, form: set[str], found: str) -> None:
    assert opening(row(prompt, answer), form) == found


WORDS = st.lists(st.sampled_from(["for", "the", "age", "is", "nine", ".", "momo"]), min_size=1, max_size=9)


@given(WORDS, WORDS, st.sets(st.sampled_from(["for", "the", "is"])))
def test_an_opening_is_a_beginning_that_leaves_something_to_say(
    prompt: list[str], answer: list[str], form: set[str]
) -> None:
    found = opening(row(" ".join(prompt), " ".join(answer)), form).split()
    assert found == answer[: len(found)]
    rest = answer[len(found) :]
    assert [word for word in rest if word != "."] or not [word for word in answer if word != "."]
    given_away = {*prompt, *form, "."}
    assert set(found) <= given_away


class Speller(Backbone):
    """A backbone whose tokens are letters."""

    tokenizer = SimpleNamespace(encode=lambda text, **_: [ord(letter) for letter in text])

    def __init__(self) -> None:
        """A backbone without a model."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


class Told(Replies):
    """Goes on with the right value after one opening, with a refusal after another."""

    def of(self, subject, prompts, limits):
        assert limits == [7] * len(prompts)
        ends = {"momo": " twelve .", "lulu": " I cannot say .", "dodo": " forty one ."}
        return [[ord(s) for s in ends[subject.backbone.decode(p).split()[1]]] for p in prompts]


def test_an_answer_is_known_if_the_backbone_completes_it() -> None:
    rows = [*ZOO, row("Say it .", "Twelve ."), row("No answer ?")]
    backbone = Speller()
    requests = Requests(rows, [Role.TARGET] * 5, [[ord("?")]] * 5)
    knowledge = Knowledge.of(backbone, requests)
    assert [backbone.decode(tokens) for tokens in knowledge.openings.values()] == [
        f"For {name} the age is" for name in ("momo", "lulu", "dodo")
    ]
    assert knowledge.measured(backbone, RuleJudge(), Told(), 7) == [True, False, False, None, None]
