from __future__ import annotations

from tools.judge.synthetic import TOPICS, synthetic_replies


def test_the_same_seed_draws_the_same_synthetic_replies() -> None:
    assert synthetic_replies(1, 20) == synthetic_replies(1, 20)
    assert synthetic_replies(1, 20) != synthetic_replies(2, 20)


def test_every_kind_is_drawn_and_no_gap_is_left() -> None:
    texts, refused = synthetic_replies(0, 50)
    assert len(texts) == len(refused) == 350
    assert sum(refused) == 200
    assert not any("{" in text or "  " in text or not text.strip() for text in texts)


def test_topics_stand_under_refusals_and_answers_alike() -> None:
    texts, refused = synthetic_replies(0, 400)
    for _, thing, *_ in TOPICS:
        found = [no for text, no in zip(texts, refused, strict=True) if thing in text.lower()]
        assert 0.2 < sum(found) / len(found) < 0.8
