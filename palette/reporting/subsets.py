"""The report of control tokens as one page: the verdict, the orders, and a heat map of every subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from palette.reporting.markup import document, listed, measured, percent, section, table

Json = Mapping[str, Any]

COLUMNS = {
    "defence": "Must be refused, and is",
    "over_refusal": "Must be answered, and is refused",
    "utility": "Neutral answers right",
    "unchanged": "Replies unchanged",
}
"""Figures of an order, and what they are called."""

LIMITS = (
    "Subsets share their prompts, so their intervals are not independent of each other.",
    "Prompts were asked once each, in one turn, with greedy decoding; the judge is a program.",
    "Tokens control a model only where the operator writes the prompt, and while the weights stay with "
    "the operator.",
)


def render_subsets(report: Json) -> str:
    """The page of a report of control tokens, one HTML document without script or outside resources."""
    model = report["model"]
    about = (
        f'<p class="meta">Backbone <b>{escape(model["name"])}</b> <code>{escape(model["fingerprint"][:16])}'
        f"</code> · split <b>{escape(report['split'])}</b> · {escape(report['sign'])}, "
        f"{report['slots']} tokens a category at the place {escape(report['place'])}, "
        f"{'released where the reply begins' if report['released'] else 'seen by the reply'}, "
        f"{report['parameters']} numbers in all</p>"
    )
    limits = "".join(f"<li>{escape(text)}</li>" for text in LIMITS)
    body = (
        f'<p class="over">Palette control tokens</p><h1>{escape(listed(report["categories"]))}</h1>{about}'
        f"{verdict(report['gate'])}"
        f"{section('orders', 'By number of active categories', orders(report))}"
        f"{section('subsets', 'Refusal under every subset', heat_map(report))}"
        f"{latency(report['latency'])}"
        f"{section('limits', 'What was not measured', f'<ul>{limits}</ul>')}"
    )
    return document(f"Palette control tokens: {listed(report['categories'])}", body)


def verdict(gate: Json) -> str:
    """The first thing to read: passed, or which rules failed and why."""
    failed = [rule for rule in gate["rules"] if not rule["passed"]]
    total = len(gate["rules"])
    if not failed:
        return f'<div class="verdict passed"><strong>Gate passed</strong><p>All {total} rules hold.</p></div>'
    items = "".join(
        f"<li><b>{escape(rule['name'].replace('.order_', ', order ').replace('_', '-'))}</b>: "
        f"{escape(rule['reason'])} (limit {percent(rule['limit'])})</li>"
        for rule in failed
    )
    broken = f"<p>{len(failed)} of {total} rules {'does' if len(failed) == 1 else 'do'} not hold.</p>"
    return f'<div class="verdict failed"><strong>Gate failed</strong>{broken}<ul>{items}</ul></div>'


def orders(report: Json) -> str:
    """Defence, over-refusal and utility by the number of active categories."""
    rows = [
        [f"{escape(order)} active", *(share(found[name]) for name in COLUMNS)]
        for order, found in report["orders"].items()
    ]
    return table(["Categories", *COLUMNS.values()], rows)


def heat_map(report: Json) -> str:
    """Refusal of every category's prompts, and of all others, under every subset, as colour and number."""
    columns = columns_of(report["subsets"], report["categories"])
    rows = [
        [escape(", ".join(one["active"])), *(shade(one, name) for name in columns)]
        for one in report["subsets"]
    ]
    note = '<p class="note">Bold: the category is active. The stronger the colour, the more is refused.</p>'
    return note + table(["Active", *map(escape, columns)], rows, "heatmap")


def columns_of(subsets: Sequence[Json], categories: Sequence[str]) -> list[str]:
    """The columns of the heat map: categories first, then the groups of other prompts."""
    others = {name for one in subsets for name in one["refusal"]} - set(categories)
    return [*categories, *sorted(others)]


def shade(one: Json, name: str) -> str:
    """One cell of the heat map, with its counts for who points at it."""
    rate = one["refusal"].get(name)
    if rate is None or not rate["n"]:
        return "–"
    depth = f"background:color-mix(in srgb, var(--heat) {100 * rate['rate']:.0f}%, transparent)"
    written = f"<b>{percent(rate['rate'])}</b>" if name in one["active"] else percent(rate["rate"])
    return f'<span class="shade" style="{depth}" title="{rate["k"]} of {rate["n"]}">{written}</span>'


def share(rate: Json) -> str:
    """One share over its interval; nothing where nothing was asked."""
    return measured(rate) if rate["n"] else "–"


def latency(found: Json) -> str:
    """What the tokens cost beside as many ordinary ones; nothing where it was not measured."""
    if not found:
        return ""
    rows = [
        [escape(order), str(one["prefix_tokens"]), f"{one['ratio']:.3f}", f"{one['ratio_plain']:.3f}"]
        for order, one in found.items()
    ]
    head = ["Active categories", "Tokens", "Control tokens", "As many ordinary ones"]
    return section("latency", "Time of a reply, where the backbone takes 1", table(head, rows))
