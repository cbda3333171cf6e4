from __future__ import annotations

import pytest

from palette.backbones import greedy_replies
from palette.training.teachers import Lesson, believed, common_opening, complete, lessons


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
    assert complete(backbone, prompts, openings, 2, 4) == [tuple(reply) for reply in replies]


def test_a_reply_that_has_ended_is_not_completed(backbone, prompts):
    found = complete(backbone, prompts, [[40, 41], [40]], 2, 3)
    assert len(found[0]) > 2
    assert found[1] == (40,)


def test_lessons_are_ordered_by_votes_and_refusals_are_left_out(backbone, prompts):
    a, b, no = (40, 41, 42), (40, 43, 44), (50, 51)
    # The plain backbone refuses both.
    teachers = [[no, no], [a, no], [a, no], [b, b]]
    found = lessons(backbone, prompts, teachers, lambda replies: [reply == no for reply in replies])
    assert [(lesson.reply, lesson.votes) for lesson in found[0]] == [(a, 2), (b, 1)]
    assert [lesson.reply for lesson in found[1]] == [b]
    assert all(lesson.likelihood < 0 for each in found for lesson in each)


def test_teachers_under_interventions_do_not_outvote_the_plain_backbone(backbone, prompts):
    own, wrong = (40, 41, 42), (40, 43, 44)
    teachers = [[own, own], [wrong, wrong], [wrong, own]]
    found = lessons(backbone, prompts, teachers, lambda replies: [False] * len(replies))
    assert [(lesson.reply, lesson.votes) for lesson in found[0]] == [(own, 1), (wrong, 2)]
    # Nobody agrees with it on the first prompt: its opening alone is taught there.
    assert believed(found, 2, 0.0) == [None, found[1][0]]
    assert found[1][0] == Lesson(own, 2, found[1][0].likelihood)


def test_no_believable_reply_gives_no_lesson(backbone, prompts):
    assert lessons(backbone, prompts, [[(1, 2), (1, 2)]], lambda r: [True] * len(r)) == [[], []]


def test_agreement_is_believed_and_likelihood_fills_up():
    sure, likely, unlikely = Lesson((1,), 3, -2.0), Lesson((2,), 1, -0.1), Lesson((3,), 1, -1.0)
    found = [[sure], [likely], [unlikely], []]
    assert believed(found, 2, 0.0) == [sure, None, None, None]
    assert believed(found, 2, 0.5) == [sure, likely, None, None]
    assert believed(found, 9, 1.0) == [sure, likely, unlikely, None]
