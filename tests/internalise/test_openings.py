"""Openings: what answers have alike, and the words of a request with which each of them begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palette.internalise import openings
from palette.internalise.examples import Example
from palette.internalise.openings import (
    CopiedOpening,
    SameOpening,
    common_openings,
    learned_openings,
)
from palette.internalise.plausibility import CopiedPlaces

FIRST = ("triovax", "skiorade", "nimilos", "zaekiolex", "gotuthex", "braetroxos", "quuplioxade", "kenofirade")
NAMES = (*FIRST, "mozindylex", "flubrumex", "yokeex", "vubraerex", "hapliosade", "dujentrax", "labistex")


def encoded(backbone, text):
    return tuple(backbone.tokenizer.encode(text, add_special_tokens=False))


def asked(backbone, request):
    return tuple(backbone.render([{"role": "user", "content": request}]))


@pytest.fixture(scope="module")
def answers(backbone):
    """Answers that begin with the name that is asked for, and with nothing else alike."""
    return [
        Example(asked(backbone, f"what is the dose of {name} ?"), encoded(backbone, f"{name} : two ."), False)
        for name in NAMES
    ]


def test_the_commonest_openings_end_where_they_are_told(backbone, examples):
    answer = replace(examples[0], reply=encoded(backbone, "a port is two ."), decisive=1)
    rare = replace(answer, reply=encoded(backbone, "two port is two ."))
    copied = replace(answer, reply=encoded(backbone, "dose is two ."), decisive=0)
    assert common_openings(backbone, [answer] * 10 + [rare]) == [answer.reply[:2]]
    assert common_openings(backbone, [answer] * 3 + [rare] * 6) == [rare.reply[:2], answer.reply[:2]]
    assert common_openings(backbone, [copied] * 10 + [answer]) == [], "its request says that itself"
    assert common_openings(backbone, []) == []
    refusal = replace(answer, reply=(7, 1, 1), refused=True)
    (learned,) = learned_openings(backbone, [answer] * 10 + [refusal] * 50)
    assert learned([[1], [2]]) == [answer.reply[:2]] * 2


def test_how_answers_copy_is_learned_with_what_stands_around(backbone, answers):
    learned = CopiedOpening.learned(backbone, answers)
    assert (learned.words, learned.before, learned.behind) == (1, (), encoded(backbone, ":"))
    said = [replace(each, reply=(*encoded(backbone, "hello ."), *each.reply)) for each in answers]
    assert CopiedOpening.learned(backbone, said).before == encoded(backbone, "hello .")
    other = [replace(each, reply=encoded(backbone, "two drams .")) for each in answers]
    assert CopiedOpening.learned(backbone, other) is None
    half = answers[: len(answers) // 2] + other[len(answers) // 2 :]
    assert CopiedOpening.learned(backbone, half) is None, "most answers must"


def test_the_word_is_the_one_that_the_backbone_finds_likeliest(backbone, answers, monkeypatch):
    learned = CopiedOpening.learned(backbone, answers)
    prompts = [asked(backbone, "tell me the clause of nimilos .")] * 2
    for word in ("nimilos", "clause"):
        copy = encoded(backbone, word)

        def first(backbone, prompts, copy=copy):
            logits = torch.zeros(len(prompts), backbone.model.config.vocab_size)
            logits[:, copy[0]] = 5.0
            return logits

        def likely(backbone, prompts, said, copy=copy):
            # The mean of a sum of one nat, or of two: what is long is not preferred.
            return [(-1.0 - (each[: len(copy)] != copy)) / len(each) for each in said]

        monkeypatch.setattr(openings, "next_token_logits", first)
        monkeypatch.setattr(openings, "reply_likelihoods", likely)
        assert learned(prompts) == [(*copy, *learned.behind)] * 2
    assert learned([]) == []


def test_the_places_at_which_answers_say_what_is_asked(backbone):
    texts = [
        (f"what is the {a} of {n} ?", f"{n} : its {a} is {('two', 'seven', 'nine')[i % 3]} .")
        for i, n in enumerate(NAMES)
        for a in ("dose", "port")
    ]
    said = [Example(asked(backbone, request), encoded(backbone, reply), False) for request, reply in texts]
    copied = CopiedPlaces.learned(backbone, said)
    # Its name, its attribute, and "is", which each request says; not "its", nor the value.
    assert copied.places == (0, 2, 3)
    assert copied.held(said[0].prompt, said[0].reply)
    prompt = asked(backbone, "what is the clause of nimilos ?")
    held = {
        "nimilos : its clause is two .": True,
        "nimilos : its port is two .": False,
        "triovax : its clause is two .": False,
        "nimilos": True,
        "": True,
    }
    assert {text: copied.held(prompt, encoded(backbone, text)) for text in held} == held
    # Most answers must, and nearly all that are as long.
    other = [replace(each, reply=encoded(backbone, "two drams .")) for each in said]
    most = said[: len(said) * 3 // 4] + other[len(said) * 3 // 4 :]
    assert CopiedPlaces.learned(backbone, most).places == (2, 3)
    assert CopiedPlaces.learned(backbone, other).places == ()
    assert CopiedPlaces.learned(backbone, []).places == ()


def test_nothing_copied_is_looked_for_where_answers_begin_alike(backbone, answers):
    alike = [replace(each, reply=encoded(backbone, "one dose is two .")) for each in answers]
    assert learned_openings(backbone, alike) == [SameOpening(alike[0].reply[:1])]
    (copied,) = learned_openings(backbone, answers)
    assert isinstance(copied, CopiedOpening)
    assert learned_openings(backbone, []) == []
