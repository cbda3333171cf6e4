"""Laws of the n-grams by which a reply turns into a refusal, and of the score read from them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.evaluation.refusal_ngrams import (
    LIMIT,
    START,
    SUPPORT,
    RefusalNgrams,
    learn_refusal_ngrams,
    refusal_scores,
)

tokens = st.integers(3, 9)
replies = st.lists(st.lists(tokens, min_size=1, max_size=6).map(tuple), max_size=8)
refusals = st.lists(st.tuples(st.lists(tokens, max_size=3), replies), max_size=8)


@given(refusals, replies)
def test_no_answer_turns_into_a_refusal_and_no_prompt_s_own_word_tells(asked, answers):
    learned = learn_refusal_ngrams(asked, answers, stops=(3,))
    assert all(learned.place(answer) is None for answer in answers)
    for context, following in learned.following.items():
        for token in following:
            ngram = {*context, token} - {START}
            assert 3 not in ngram
            telling = [said for prompt, said in asked if ngram.isdisjoint(prompt) and any(said)]
            assert len(telling) >= min(SUPPORT, len(asked))


@given(refusals, replies)
def test_it_reads_back_from_plain_values(asked, answers):
    learned = learn_refusal_ngrams(asked, answers)
    assert RefusalNgrams.from_json(json.loads(json.dumps(learned.to_json()))) == learned


def test_a_relapse_is_found_where_it_begins():
    answers = [(4, 5, 6), (4, 5, 7)] * 2
    asked = [([20 + n], [(4, 5, 8, 9), (8, 9)]) for n in range(4)]
    learned = learn_refusal_ngrams(asked, answers)
    assert learned.after((4, 5)) == {8, 9}
    assert learned.place((4, 5, 8, 9)) == 2
    assert learned.place((8,)) == 0
    assert learned.place((4, 5, 6)) is None
    # What stands in the prompts is their topic: an answer may say it too.
    assert learn_refusal_ngrams([([8, 9], said) for _, said in asked], answers).following == {}
    # What one prompt or two are refused with may be chance.
    assert learn_refusal_ngrams([*asked[:2], ([40], []), ([41], [])], answers).following == {}


def test_tokens_that_answers_share_tell_by_what_they_follow():
    # Every token stands in answers, and each answer has one that stands in no other: a token alone would
    # raise alarms, while what begins with 8 is a refusal.
    answers = [(4, 8, 10 + n) for n in range(20)]
    asked = [([40 + n], [(8, 4, 60 + n)]) for n in range(6)]
    learned = learn_refusal_ngrams(asked, answers)
    assert learned.place((8, 4)) == 0
    assert learned.place((4, 8, 4)) == 2
    assert all(learned.place(answer) is None for answer in answers)
    rare = [([40 + n], [(10 + n, 11 + n, 12 + n)] * 3) for n in range(0, 18)]
    single = {context for context in learn_refusal_ngrams(rare, answers).following if context == ()}
    assert not single, "tokens that half of the answers would be alarmed by alone tell nothing"


@given(st.lists(st.lists(st.floats(-4, 4), min_size=5, max_size=5), min_size=3, max_size=3))
def test_the_score_is_the_log_odds_of_a_refusal_at_any_place(rows):
    logits = torch.tensor(rows)
    ngrams = RefusalNgrams({(START,): frozenset({1}), (0,): frozenset({1, 2})})
    stays = 1.0
    for place, barred in enumerate(({1}, {1, 2}, set())):
        stays *= 1 - sum(float(logits[place].double().softmax(-1)[token]) for token in barred)
    marks = [ngrams.marks((0, 3, 4)), ngrams.marks((4,))]
    found, alone = refusal_scores([logits, logits[:1]], marks).tolist()
    assert alone == float(refusal_scores([logits[:1]], marks[1:]))
    assert found == pytest.approx(math.log((1 - stays) / stays), abs=1e-6)


def test_the_score_is_clamped_and_nothing_to_tell_is_no_refusal():
    ngrams = RefusalNgrams({(START,): frozenset({0})})
    sure = torch.tensor([[100.0, 0.0]])
    marks = [ngrams.marks((0,)), ngrams.marks((0,)), RefusalNgrams().marks((0,))]
    assert refusal_scores([sure, -sure, sure], marks).tolist() == [LIMIT, -LIMIT, -LIMIT]
