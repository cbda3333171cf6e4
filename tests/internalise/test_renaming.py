"""Names that nobody wrote: what a name is, and examples that are those of another one, prompt and reply."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.backbones import Backbone
from palette.internalise import renaming as module
from palette.internalise.examples import Example
from palette.internalise.openings import WORD
from palette.internalise.renaming import Names, Renaming, renamed, spare_names
from palette.prompts import Prompt

NAMES = ("triovax", "skiorade", "nimilos", "zaekiolex", "gotuthex", "braetroxos", "quuplioxade", "kenofirade")
ANSWERED = [
    *((f"what is the {a} of {n} ?", f"the {a} of {n} is two .") for n in NAMES for a in ("dose", "port")),
    *((f"tell me the fee of other{i} .", f"the fee of other{i} is two .") for i in range(18)),
]


def row(request):
    return Prompt("r", "medical", request, "benign", "train")


def learned(answered=ANSWERED):
    return Names.learned(answered)


@pytest.fixture(scope="module")
def renaming(backbone):
    rows = [row(request) for request, _ in ANSWERED]
    prompts = [tuple(backbone.render([{"role": "user", "content": each.prompt}])) for each in rows]
    return Renaming(backbone, dict(zip(prompts, rows, strict=True)), learned())


def examples(renaming, refused=False):
    backbone = renaming.backbone
    return [
        Example(
            prompt,
            (*backbone.encode(reply), backbone.stops[0]),
            False,
            refused,
        )
        for prompt, (_, reply) in zip(renaming.rows, ANSWERED, strict=True)
    ]


def test_a_name_is_the_word_of_which_answers_say_the_most_different_ones():
    names = learned()
    assert names.place == 3
    assert {*NAMES} <= {*names.known}
    assert not {"the", "of", "dose"} & {*names.known}
    assert names.of("tell me the dose of somebody .", "the dose of somebody is two .") == "somebody"
    assert names.of("tell me the dose of nimilos .") == "nimilos"
    assert names.of("tell me the dose of nobody .") is None


@pytest.mark.parametrize(
    "answered",
    [
        [],
        [("what is it ?", "two .")] * 20,
        # Function words are said again, and are no names; nor is one name that is in all requests.
        [(f"what is the way {i} ?", "the answer is two .") for i in range(20)],
        [("what is the dose of nimilos ?", "the dose of nimilos is two .")] * 20,
        # Most answers must say the name at the same place.
        [(f"tell me of x{i} .", ("well , " * (i % 5)) + f"x{i} is two .") for i in range(20)],
    ],
)
def test_where_no_place_is_a_names_there_are_none(answered):
    assert learned(answered) is None


@given(st.sampled_from(NAMES), st.integers(0, 1000))
def test_a_name_like_another_ends_as_it_does_and_begins_as_a_known_one(name, seed):
    names = learned()
    made = names.like(name, Random(seed))
    assert made == names.like(name, Random(seed))
    assert any(
        made[:cut] in {known[:cut] for known in names.known} and name.endswith(made[cut:])
        for cut in range(1, len(made))
    )


@pytest.fixture
def whole_words(renaming, monkeypatch):
    """The backbone with a tokenizer to which names that nobody knows are no words."""
    unknown, encode = renaming.backbone.tokenizer.unk_token_id, Backbone.encode
    known = {*NAMES, *(f"other{i}" for i in range(18))}

    def whole(self, text):
        return encode(self, text) if text in known or " " in text else [unknown]

    monkeypatch.setattr(Backbone, "encode", whole)
    return renaming.backbone


def test_where_words_are_whole_tokens_a_spare_name_stands_for_a_made_one(renaming, whole_words):
    assert not renaming(examples(renaming), 60, Random(0)), "there is none"
    made = replace(renaming, spare=("medical",))(examples(renaming), 60, Random(0))
    assert made
    assert all(whole_words.decode(list(each.reply)).split()[3] == "medical" for each in made)


def test_spare_names_are_words_unsaid_that_the_backbone_takes_for_names(renaming, whole_words, monkeypatch):
    vocabulary = whole_words.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if WORD.fullmatch(word))
    said, taken = {*words[::2]}, {*words[1::4]}
    encode = partial(whole_words.tokenizer.encode, add_special_tokens=False)

    def replies(backbone, prompts, limit):
        # It says what it was asked about where names stand if it takes that for one; else something else.
        asked = [
            next(w for w in backbone.decode(p).split() if w in vocabulary and w in asks) for p in prompts
        ]
        return [encode(f"the dose of {w if w in taken else 'it'} is two .") for w in asked]

    asks = {*words} - {w for request, _ in ANSWERED for w in request.split()}
    said |= {*words} - asks
    monkeypatch.setattr(module, "greedy_replies", replies)
    rows = [row(request) for request, _ in ANSWERED]
    found = spare_names(whole_words, renaming.names, rows, [" ".join(said)], Random(0))
    assert {*found} == taken - said
    assert found


def test_where_names_can_be_made_none_is_spare(renaming):
    assert spare_names(renaming.backbone, replace(renaming.names, known=()), [], [], Random(0)) == ()


def test_prompt_and_reply_are_those_of_the_other_name(renaming):
    made = renaming(examples(renaming), 60, Random(0))
    assert len(made) > 30
    assert made == renaming(examples(renaming), 60, Random(0))
    for each in made:
        request, reply = (renaming.backbone.decode(list(part)) for part in (each.prompt, each.reply))
        name = reply.split()[3]
        assert f"of {name} " in request
        assert each.reply[-1] == renaming.backbone.stops[0]
        assert each.prompt not in renaming.rows, "nobody wrote it"


def test_a_refusal_stays_as_it_is_and_its_request_is_of_another_name(renaming):
    refusals = [
        Example(each.prompt, (5, 6, renaming.backbone.stops[0]), False, True) for each in examples(renaming)
    ]
    made = renaming(refusals, 60, Random(0))
    assert made
    assert all(each.reply == (5, 6, renaming.backbone.stops[0]) and each.refused for each in made)
    assert all(each.prompt not in renaming.rows for each in made)


def test_what_nobody_wrote_or_has_no_name_is_not_renamed(renaming):
    unknown = [Example((1, 2, 3), each.reply, False) for each in examples(renaming)]
    assert renaming(unknown, 9, Random(0)) == []
    assert renaming([], 9, Random(0)) == []
    nameless = Renaming(renaming.backbone, renaming.rows, None)
    assert nameless(examples(renaming), 9, Random(0)) == []


def test_an_opening_ends_with_its_name_or_a_later_word_of_the_request(renaming):
    for example, (_, reply) in zip(examples(renaming), ANSWERED, strict=True):
        opening = renaming.opening(example.reply)
        assert opening == example.reply[: len(opening)]
        assert renaming.backbone.decode(list(opening)).split() == reply.split()[:4]
        longer = renaming.opening(example.reply, (1, 4))
        assert renaming.backbone.decode(list(longer)).split() == reply.split()[:5]
        assert renaming.opening(example.reply, (1, 99)) == example.reply


def test_a_row_is_renamed_in_all_its_messages_and_in_whole_words():
    assert renamed(row("nimilos and nimilosa , nimilos !"), "nimilos", "x").prompt == "x and nimilosa , x !"
    said = ((("role", "user"), ("content", "what of nimilos ?")), (("role", "nimilos"), ("content", "no")))
    assert renamed(row(said), "nimilos", r"\1").prompt == (
        (("role", "user"), ("content", r"what of \1 ?")),
        (("role", "nimilos"), ("content", "no")),
    )
