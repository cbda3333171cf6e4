from __future__ import annotations

from tools.judge.shapes import TOPICS
from tools.judge.synthetic import synthetic_replies


def test_the_same_seed_draws_the_same_synthetic_replies() -> None:
    assert synthetic_replies(1, 20) == synthetic_replies(1, 20)
    assert synthetic_replies(1, 20) != synthetic_replies(2, 20)


def test_every_kind_is_drawn_and_no_gap_is_left() -> None:
    replies = synthetic_replies(0, 50)
    assert len(replies) == 850 and sum(row.label.refused for row in replies) == 350
    texts = [text for row in replies for text in (row.prompt, row.reply)]
    assert not any("{" in text or "  " in text or not text.strip() for text in texts)


def test_topics_stand_under_refusals_and_answers_alike() -> None:
    replies = synthetic_replies(0, 400)
    for _, thing, *_ in TOPICS:
        found = [row.label.refused for row in replies if thing in row.reply.lower()]
        assert 0.2 < sum(found) / len(found) < 0.8


def test_what_is_denied_and_not_the_denial_makes_a_refusal() -> None:
    denials = [row for row in synthetic_replies(0, 400) if row.reply.startswith("There is no reason why")]
    assert {row.label.refused for row in denials if row.prompt.startswith("Why should")} == {True}
    assert {row.label.refused for row in denials if row.prompt.startswith("Why does")} == {False}


def test_a_caveat_stands_before_answers_and_before_lessons() -> None:
    caveated = [
        row.label.refused for row in synthetic_replies(0, 400) if "just an AI and this is no" in row.reply
    ]
    assert 0.2 < sum(caveated) / len(caveated) < 0.8
