"""Reports as plain values that a test can bend, and what is made of them once they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palette.reporting import card, pages
from palette.reporting.comparison import Comparison, compare
from palette.reporting.report import validated


def as_json(report: Mapping[str, Any]) -> dict[str, Any]:
    """The content of report.json."""
    return validated(report).model_dump(mode="json")


def render(report: Mapping[str, Any]) -> str:
    """The page of a report."""
    return pages.render(validated(report))


def render_card(report: Mapping[str, Any], despite: str | None = None) -> str:
    """The card of a report."""
    return card.render_card(validated(report), despite)


def compared(
    a: Mapping[str, Any], b: Mapping[str, Any], labels: tuple[str, str] = ("one", "two")
) -> Comparison:
    """Two reports side by side."""
    return compare(validated(a), validated(b), [(label, label) for label in labels])
