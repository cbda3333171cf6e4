"""What looks like a prompt of the floor, by its words: held out, at a known share of others, however long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette import organism
from palette.authorisation import FLOOR
from palette.gateway.asking import Asked, Message
from palette.gateway.monitor import FALSE, READ, Lookalikes, learnt
from palette.prompts.labelling import load_prompts
from palette.prompts.rows import Prompt

FLOORED = FLOOR.extended(["weapons"])


def is_floor(row: Prompt) -> bool:
    return row.kind != "benign" and FLOORED.holds(row.domain, row.tier, row.hazard)


@pytest.fixture(scope="module")
def rows() -> list[Prompt]:
    return [*load_prompts(organism.prompts())]


def texts(rows: list[Prompt], split: str, *, floor: bool) -> list[str]:
    return [row.request for row in rows if row.split == split and is_floor(row) is floor]


@pytest.fixture(scope="module")
def looks(rows) -> Lookalikes:
    others = texts(rows, "validation", floor=False)
    found = learnt(texts(rows, "train", floor=True), texts(rows, "train", floor=False), others)
    assert found is not None
    return found


def asked(*said: tuple[str, str]) -> Asked:
    return Asked("medical", tuple(Message(*each) for each in said), 8)


def share(looks: Lookalikes, said: list[str]) -> float:
    return sum(looks(asked(("user", each))) for each in said) / len(said)


def test_held_out_prompts_of_the_floor_stand_out_from_others(looks, rows):
    assert share(looks, texts(rows, "test", floor=True)) > 0.5
    assert share(looks, texts(rows, "test", floor=False)) < 0.04
    assert share(looks, texts(rows, "validation", floor=False)) <= FALSE


def test_what_users_say_is_looked_at_in_every_message_and_sentence(looks, rows):
    bad = max(texts(rows, "test", floor=True), key=looks.score)
    assert looks(asked(("user", f"good morning . {bad.upper()} . thank you for all your help today")))
    assert looks(asked(("user", bad), ("assistant", "no"), ("user", "and now ?")))
    assert not looks(asked(("assistant", bad), ("user", "what did you say ?")))
    assert not looks(asked(("user", bad + "\n" + "so " * READ))), "but for what came long before"


def test_nothing_of_a_prompt_is_shown(looks):
    assert "nats" not in repr(looks)


def test_where_there_is_nothing_to_learn_from_there_is_none():
    for floor, others, held_out in (([], ["a"], ["b"]), (["a"], [], ["b"]), (["a"], ["b"], [])):
        assert learnt(floor, others, held_out) is None


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=150))
def test_no_text_breaks_it_and_no_more_others_than_their_share_are_taken(text, held_out):
    found = learnt(["how is it made"], ["what is the dose"], held_out)
    assert found is not None
    found(asked(("user", text)))
    assert sum(found.score(each) >= found.least for each in held_out) <= FALSE * len(held_out)
