"""Every page: valid, readable without sight, of bounded size, and deaf to hostile names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from palette.reporting.pages import render_comparison
from tests.reporting.bent import compared, render
from tests.reporting.tree import parsed

HOSTILE = "<script>alert('x')</script>\"' onload=x <img src=x> &amp; ${t} {{ 7 * 7 }}{% raw %} </style>\u202e"
NAMED = {
    "domains", "changes", "general", "hazards", "by_model", "wrapped", "seeds", "versions", "seconds",
    "collected", "prompts", "recipe", "base", "adapted",
}  # fmt: skip
"""Fields whose keys come from outside; ``base`` and ``adapted`` only where they hold a suite's measures."""

FIXED = {"format", "kind"}
SCHEMA = {"domains", "utility", "divergence", "rate", "low", "high", "k", "n", "authorised_refused"}


def hostile(value: Any, field: str = "") -> Any:
    """A report whose every name from outside carries markup; the same name becomes the same again."""
    if isinstance(value, dict):
        outside = field in NAMED and not SCHEMA & set(value)
        if field in ("base", "adapted") and "legal" in value:
            outside = True
        return {
            (key + HOSTILE if outside else key): hostile(one, "" if outside else key)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [hostile(one, field) for one in value]
    return value + HOSTILE if isinstance(value, str) and field not in FIXED else value


def labelled(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str] = ("one", "two")) -> str:
    return render_comparison(compared(a, b, names))


@pytest.fixture(scope="module")
def pages(report: dict[str, Any], failing: dict[str, Any], full: dict[str, Any]) -> dict[str, str]:
    """Every kind of page."""
    return {
        "passed": render(report),
        "failed": render(failing),
        "full": render(full),
        "compared": labelled(report, failing),
        "alike": labelled(full, full),
        "hostile": render(hostile(full)),
        "hostile compared": labelled(hostile(full), report, (HOSTILE, HOSTILE)),
    }


KINDS = ["passed", "failed", "full", "compared", "alike", "hostile", "hostile compared"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_one_sound_document(pages: dict[str, str], kind: str) -> None:
    page = pages[kind]
    tree = parsed(page)
    names = {tag for tag, _ in tree.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not any(name.startswith("on") for _, attributes in tree.tags for name in attributes)
    assert not any(name in ("src", "href", "style") for _, attributes in tree.tags for name in attributes)
    ids = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.startswith("<!doctype html>")
    assert page.count("</style>") == 1
    assert [tag for tag, _ in tree.tags].count("h1") == 1
    blocks = {"p", "ul", "dl", "div", "table", "figure", "section", "pre", "h2", "h3"}
    assert not any(outer in ("p", "span", "b", "h1", "h2") and tag in blocks for outer, tag in tree.inside)


@pytest.mark.parametrize("broken", ["<div>", "<p><b></p></b>", '<p id="a" id="b"></p>', "</p>"])
def test_a_page_that_is_not_sound_is_seen(broken: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        parsed(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_headings_come_in_order(pages: dict[str, str], kind: str) -> None:
    levels = [int(tag[1]) for tag, _ in parsed(pages[kind]).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_speak_and_tables_have_scopes(pages: dict[str, str], kind: str) -> None:
    tree = parsed(pages[kind])
    drawings = [attributes for tag, attributes in tree.tags if tag == "svg"]
    assert len(drawings) > 10
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings)
    assert tree.inside.count(("svg", "title")) == len(drawings)
    scopes = {attributes.get("scope") for tag, attributes in tree.tags if tag == "th"}
    assert scopes <= {"col", "row", "colgroup"}


def test_the_alternatives_give_the_figures(report: dict[str, Any], full: dict[str, Any]) -> None:
    page = render(full)
    assert "Refusal, medical, restricted: before 100.0" in page
    assert "3 members of the Pareto front" in page
    assert "Divergence, first token: 0.008\u202fnats, limit 0.05\u202fnats" in page
    assert "Refusals taken for compliance: 3.0\u202f% (1.0 to 8.5\u202f%, 3 of 100)" in page
    assert "open dot" in page
    assert "legal, floor, refusal: one 100.0" in labelled(report, report)


def test_names_from_outside_cannot_become_markup(pages: dict[str, str]) -> None:
    for kind in ("hostile", "hostile compared"):
        assert "<script" not in pages[kind]
        assert "<img" not in pages[kind]
    assert pages["hostile"].count("&lt;script&gt;") > 100
    assert pages["hostile compared"].count("&lt;script&gt;") > 20


@pytest.mark.parametrize("make", [render, lambda report: labelled(report, report)])
def test_forty_domains_stay_under_two_megabytes(
    full: dict[str, Any], make: Callable[[dict[str, Any]], str]
) -> None:
    large = copy.deepcopy(full)
    for side in ("base", "adapted"):
        kinds = {**large[side]["domains"]["legal"]}
        large[side]["domains"] = {f"{'profession' * 4}-{i}": kinds for i in range(40)}
    large["changes"] = {domain: full["changes"]["legal"] for domain in large["base"]["domains"]}
    large["search"]["separation"] = [[float(s * p) for p in range(1, 8)] for s in range(120)]
    ids = [f"{'profession' * 4}-{i}-{'0' * 64}" for i in range(50)]
    large["judging"]["disagreements"]["ids"] = large["over_refusal"]["ids"] = ids
    large["hazards"] = {f"hazard-{i}": full["hazards"]["prv"] for i in range(40)}
    large["suites"] = full["suites"] * 20
    page = make(large)
    parsed(page)
    assert len(page.encode()) < 2_000_000
