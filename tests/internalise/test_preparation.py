"""Laws of what is taught: completions of openings, the order of replies, their self-consistency."""

from __future__ import annotations

import pytest

from palette.backbones import greedy_replies
from palette.internalise import preparation
from palette.internalise.preparation import (
    Completions,
    TaughtReply,
    common_opening,
    ranked_replies,
    self_consistent,
)


@pytest.fixture(scope="module")
def prompts(backbone):
    asked = ("what is the dose ?", "tell me the clause .")
    return [backbone.render([{"role": "user", "content": each}]) for each in asked]


def test_the_commonest_opening_wins_and_ties_go_to_the_lower_token():
    assert common_opening([[5, 1], [5, 2], [7]]) == (5,)
    assert common_opening([[7], [5]]) == (5,)
    assert common_opening([]) == ()


def test_completion_keeps_the_opening_and_goes_on_as_the_backbone_does(backbone, prompts):
    replies = greedy_replies(backbone, prompts, 6)
    openings = [reply[:2] for reply in replies]
    assert Completions(backbone, prompts, 4).of(openings, 2) == [tuple(reply) for reply in replies]


def test_a_reply_that_has_ended_is_not_completed(backbone, prompts):
    completions = Completions(backbone, prompts, 3)
    found = completions.of([[40, 41], [40]], 2)
    assert len(found[0]) > 2
    assert found[1] == (40,)
    # Nor where it is known how the backbone would have gone on.
    assert len(completions.of([[40], [40]], 1)[1]) > 1
    assert completions.of([[40], [40]], 2) == [(40,), (40,)]


@pytest.mark.parametrize("longest", [2, 64])
def test_what_is_known_of_a_reply_is_what_the_backbone_says_again(backbone, prompts, longest):
    known = Completions(backbone, prompts, longest)
    replies = known.of([[40]] * 2, 1)
    for length in (1, 2, 3):
        openings = [reply[:length] for reply in replies]
        assert known.of(openings, 1) == Completions(backbone, prompts, longest).of(openings, 1)


def test_a_reply_that_ended_is_worked_out_once(backbone, prompts, monkeypatch):
    asked = []

    def said(backbone, prompts, openings, longest):
        asked.append(len(prompts))
        return [[*opening, 50, 51][: len(opening) + longest] for opening in openings]

    monkeypatch.setattr(preparation, "continuations", said)
    completions = Completions(backbone, prompts, 3)
    first = completions.of([[40], [41]], 1)
    assert completions.of([[40, 50], [41, 60]], 2) == [first[0], (41, 60, 50, 51)]
    assert asked == [2, 1]
    # One that was cut off is not the end of a reply that began with more.
    short = Completions(backbone, prompts, 2)
    short.of([[40], [41]], 1)
    assert short.of([[40, 50], [41, 50]], 2) == [(40, 50, 50, 51), (41, 50, 50, 51)]


def test_replies_are_ordered_by_votes_and_refusals_are_left_out(backbone, prompts):
    a, b, no = (40, 41, 42), (40, 43, 44), (50, 51)
    # The plain backbone refuses both.
    given = [[no, no], [a, no], [a, no], [b, b]]
    found = ranked_replies(backbone, prompts, given, lambda replies: [reply == no for reply in replies])
    assert [(taught.reply, taught.votes) for taught in found[0]] == [(a, 2), (b, 1)]
    assert [taught.reply for taught in found[1]] == [b]
    assert all(taught.likelihood < 0 for each in found for taught in each)


def test_teachers_under_interventions_do_not_outvote_the_plain_backbone(backbone, prompts):
    own, wrong = (40, 41, 42), (40, 43, 44)
    given = [[own, own], [wrong, wrong], [wrong, own]]
    found = ranked_replies(backbone, prompts, given, lambda replies: [False] * len(replies))
    assert [(taught.reply, taught.votes) for taught in found[0]] == [(own, 1), (wrong, 2)]
    # Nobody agrees with it on the first prompt: its opening alone is taught there.
    assert self_consistent(found, 2, 0.0) == [None, found[1][0]]
    assert found[1][0] == TaughtReply(own, 2, found[1][0].likelihood)


def test_refusals_alone_give_no_reply(backbone, prompts):
    assert ranked_replies(backbone, prompts, [[(1, 2), (1, 2)]], lambda r: [True] * len(r)) == [[], []]


def test_agreement_counts_and_likelihood_fills_up():
    sure, likely, unlikely = (
        TaughtReply((1,), 3, -2.0),
        TaughtReply((2,), 1, -0.1),
        TaughtReply((3,), 1, -1.0),
    )
    found = [[sure], [likely], [unlikely], []]
    assert self_consistent(found, 2, 0.0) == [sure, None, None, None]
    assert self_consistent(found, 2, 0.5) == [sure, likely, None, None]
    assert self_consistent(found, 9, 1.0) == [sure, likely, unlikely, None]
