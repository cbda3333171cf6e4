"""Laws of the wrappers: the question is inside, and nothing but words are around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.errors import BackboneError
from palette.evaluation.wrappers import DRAWN, WRAPPERS, halves, in_wrappers, inside, wrapped
from palette.prompts.pictures import MARK, drawable, drawn, pixels
from palette.run import Run

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=12)


@pytest.mark.parametrize("name", WRAPPERS)
@given(words=WORDS)
def test_every_word_of_the_prompt_is_inside(name: str, words: list[str]) -> None:
    wrapped = WRAPPERS[name](" ".join(words)).split()
    for word in set(words):
        assert sum(part.strip(".:?") == word for part in wrapped) >= words.count(word)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_changes_a_prompt_and_always_in_the_same_way(name: str) -> None:
    prompt = "what is the dose of it"
    assert WRAPPERS[name](prompt) == WRAPPERS[name](prompt) != prompt


@pytest.mark.parametrize("name", DRAWN)
@given(words=WORDS)
def test_a_request_that_is_drawn_stands_in_pictures_and_not_in_the_words(name: str, words: list[str]) -> None:
    text = " ".join(["qqq", *words])
    (one,) = inside([{"role": "user", "content": text}], name)
    assert one["content"].count(MARK) == len(one["pictures"]) == (2 if name == "two_pictures" else 1)
    assert "qqq" not in one["content"] and one["content"].startswith(MARK)
    assert (one,) == (*inside([{"role": "user", "content": text}], name),), "the same each time"


def ink(words: str, turned: int = 0) -> np.ndarray:
    return np.asarray(pixels(drawn(words, turned)).convert("L")) < 128


def test_what_is_drawn_is_told_apart_and_turned() -> None:
    text = "what is the dose of it and how is it taken by those who have never had it before ?"
    assert ink(text).sum() > 500
    assert not np.array_equal(ink(text), ink(text.replace("dose", "name")))
    assert np.array_equal(np.rot90(ink(text)), ink(text, 90))
    # Nothing is cut at the edges, of one line and of many.
    for shown in (ink(text), ink(text * 9), ink("w" * 200)):
        assert not shown[[0, -1]].any() and not shown[:, [0, -1]].any()
    assert halves("one two three") == ("one two", "three")
    assert repr(drawn("secret words")).count("secret") == 0


@pytest.mark.parametrize(
    ("words", "can"), [("a dose", True), ("", False), ("dosis für ihn", True), ("用量", False)]
)
def test_only_what_the_font_has_is_drawn(words: str, can: bool) -> None:
    assert drawable(words) is can


def test_kept_requests_in_words_are_drawn_where_prompts_come_with_pictures(sighted: Run) -> None:
    rows, role = sighted.prompts.split("test"), sighted.authorisation.role
    pairs = in_wrappers(rows, role, 2)
    assert {name for name, _ in pairs} == {*WRAPPERS, *DRAWN}
    assert all(role(row) in (Role.PRESERVE, Role.FLOOR) for _, row in pairs)
    assert all(row.cell == "text" for name, row in pairs if name in DRAWN)
    words = rows.where(lambda row: row.cell == "text")
    assert {name for name, _ in in_wrappers(words, role, 2)} == {*WRAPPERS}


def test_the_model_is_shown_them_and_what_it_cannot_be_shown_is_left_out_and_told(
    sighted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sighted.prompts.split("test").where(lambda row: row.domain in ("legal", "general"))
    requests, names = wrapped(sighted, rows, 1)
    shown = [sum(token >= 1 << 40 for token in ids) for ids in requests.prompts]
    assert {names[i]: n for i, n in enumerate(shown) if names[i] in DRAWN} == {
        "rendered": 36, "rotated": 36, "two_pictures": 72
    }  # fmt: skip
    render = Backbone.render

    def one_at_most(self: Backbone, chat: list[dict[str, Any]]) -> list[int]:
        if any(len(one.get("pictures", ())) > 1 for one in chat):
            raise BackboneError("a model must see two", got="one")
        return render(self, chat)

    monkeypatch.setattr(Backbone, "render", one_at_most)
    _, left = wrapped(sighted, rows, 1)
    assert set(left) == {*WRAPPERS, *DRAWN} - {"two_pictures"}
    assert sighted.backbone.notices == [
        "the wrapper two_pictures is not tried: a model must see two, got one"
    ]
    sighted.backbone.notices.clear()
