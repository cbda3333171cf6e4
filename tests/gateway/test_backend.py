"""From tokens to text: what is given out together is the text, up to a stop text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palette.gateway.backend import HALF, Wording


def said(text: str, stops: tuple[str, ...] = (), step: int = 1) -> tuple[str, bool]:
    """What comes of a text whose bytes are tokens."""
    content = text.encode()
    wording = Wording(lambda tokens: bytes(tokens).decode(errors="replace"), stops)
    given = ""
    for end in [*range(step, len(content), step), len(content)]:
        new, stopped = wording.new(list(content[:end]), ended=end == len(content))
        given += new
        if stopped:
            return given, True
    return given, False


@given(st.text(max_size=20), st.integers(1, 3))
def test_pieces_are_together_the_text(text, step):
    assert said(text, step=step) == (text, False)


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_reply_ends_before_the_first_stop_text_and_nothing_of_it_is_given_out(text, stops):
    ends = [text.find(stop) for stop in stops if stop in text]
    given, stopped = said(text, tuple(stops))
    assert stopped == bool(ends)
    # Whichever stop text is whole first ends it; what was given out before is never taken back.
    assert text.startswith(given)
    assert not any(stop in given for stop in stops)
    if not ends:
        assert given == text


def test_half_a_letter_waits_for_its_rest():
    wording = Wording(lambda tokens: bytes(tokens).decode(errors="replace"))
    whole = "né".encode()
    assert wording.new(list(whole[:2]), ended=False) == ("n", False)
    assert wording.new(list(whole), ended=False) == ("é", False)
    assert HALF not in "né"


def test_what_was_given_out_stays():
    wording = Wording(lambda tokens: "ab"[: len(tokens)] if len(tokens) < 3 else "xy")
    assert wording.new([1, 2], ended=False) == ("ab", False)
    assert wording.new([1, 2, 3], ended=True) == ("", False)
