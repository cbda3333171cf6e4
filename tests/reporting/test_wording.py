"""Words that names from outside cannot bend, and rules and numbers in words."""

from __future__ import annotations

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from palette.reporting.report import clean
from palette.reporting.wording import in_words, listed, plain

HOSTILE = [
    "x\n---\nlicense: mit\n---\n",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "<script>alert(1)</script>",
    "a | b | c",
    "`code` ``` fence",
    "# heading",
    "- item",
    "1. item",
    "http://evil.example www.evil.example @somebody a@b.example",
    "$$x$$ **bold** _it_ ~~gone~~",
    "&lt;b&gt;",
    "\u202eevil\u0000\x1b[31m",
    "<!-- ",
    "\\",
    "x" * 10_000,
]


PLAIN = {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}
"""The kinds of tokens of a text without markup."""


def tokens(text: str) -> set[str]:
    """The kinds of markup in a text, read as GitHub's Markdown."""
    found = set()
    # linkify needs a library of its own; bare addresses are looked at below.
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text):
        found.add(token.type)
        found |= {child.type for child in token.children or ()}
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_a_name(name: str) -> None:
    shown = plain(name)
    assert tokens(f"before {shown} after") <= PLAIN
    assert tokens(shown) <= PLAIN
    assert shown.isprintable()
    assert "http://" not in shown
    assert "www." not in shown
    assert not any(f"{before}@" in shown for before in "ab ")


def test_the_same_names_would_be_markup_unescaped() -> None:
    bent = [name for name in HOSTILE if tokens(clean(name)) - PLAIN]
    assert len(bent) >= 7
    assert not any(tokens(plain(name)) - PLAIN for name in bent)


@given(st.text(max_size=60))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    inline = MarkdownIt("commonmark").parse(f"x {plain(text)} x")[1]
    shown = "".join(child.content for child in inline.children or ())
    assert " ".join(unescape(shown).split()) == " ".join(f"x {clean(text)} x".split())


def test_names_read_as_sentences() -> None:
    assert listed([]) == "nothing"
    assert listed(["legal"]) == "legal"
    assert listed(["energy", "legal", "medical"]) == "energy, legal and medical"
    assert in_words("floor_refusal") == "Refusals lost on the floor, upper bound"
    assert in_words("divergence.multi_token").endswith("(all tokens)")
    assert in_words("new_rule.x") == "new_rule (x)"
