"""Words that names from outside cannot bend, and rules and numbers in words."""

from __future__ import annotations

import copy
import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from palette.cli.console import lines_of
from palette.processes import silent
from palette.reporting import pages
from palette.reporting.report import clean, validated
from palette.reporting.wording import in_words, listed, plain, pretty
from palette.stages.load import run_of
from tests.reporting.bent import compared, render, render_card

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


LIES = "/home/someone/models/chat"


@pytest.fixture
def elsewhere(full: dict[str, Any]) -> dict[str, Any]:
    """A report of a backbone in a folder of somebody's machine."""
    of = copy.deepcopy(full)
    of["model"]["name"] = of["upper_bound"]["model"] = LIES
    judge = "classifier:/home/someone/judge"
    evaluate = {"helpful": f"{LIES}-helpful/", "judge": judge, "suites": ["/home/someone/a/suite.json"]}
    more = {"model": LIES, "prompts": "~/someone/prompts", "system": "/no_think and/or", "evaluate": evaluate}
    of["provenance"]["recipe"] |= more
    of["judging"]["judges"], of["judging"]["calibration"]["judge_name"] = [judge], judge
    return of


def test_nothing_that_people_read_says_where_a_backbone_lies(elsewhere: dict[str, Any]) -> None:
    whole, both = validated(elsewhere), compared(elsewhere, elsewhere)
    run = {"folder": "out", "domains": [], "model": LIES, "gate": "passed", "when": "2026", "working": None}
    read = {
        "page": render(elsewhere),
        "summary": pages.render_summary(whole),
        "safety case": pages.render_case(whole),
        "card": render_card(elsewhere),
        "comparison": pages.render_comparison(both),
        "report": "\n".join(lines_of("report", {"result": whole, "folder": "out"})),
        "compare": "\n".join(lines_of("comparison", {"result": both, "page": None})),
        "runs": "\n".join(lines_of("runs", {"result": {"runs": [run]}})),
    }
    for name, text in read.items():
        assert "someone" not in text, name
        assert "chat" in text, name
    for digest in (whole.model.fingerprint, whole.provenance.floor):
        assert digest in read["page"]


def test_what_reads_a_report_again_finds_the_backbone(elsewhere: dict[str, Any], tmp_path: Path) -> None:
    recipe = {"model": LIES, "prompts": "organism", "authorise": ["medical"]}
    elsewhere["provenance"]["recipe"] = recipe
    (tmp_path / "report.json").write_text(json.dumps(elsewhere))
    _, run = run_of(tmp_path, silent)
    assert run.recipe.model == LIES


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/a/prompts", "prompts"),
        ("/home/a/prompts/", "prompts/"),
        ("~/mine.py:score", "mine.py:score"),
        ("C:\\models\\chat", "chat"),
        ("classifier:/home/a/judge", "classifier:judge"),
        ("chat:https://host/v1", "chat:https://host/v1"),
        ("owner/model", "owner/model"),
        ("./prompts", "./prompts"),
        ("/no_think", "/no_think"),
    ],
)
def test_a_recipe_is_shown_without_where_things_lie(value: str, shown: str) -> None:
    assert json.loads(pretty({"key": [value]})) == {"key": [shown]}
    assert json.loads(pretty({"system": value})) == {"system": value}
