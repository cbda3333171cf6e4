"""A schema of one's own: tickets of a help desk, whose prompt is a subject and a text.

``prompts: {sources: [{path: tickets.csv, schema: docs/examples/tickets_schema.py:TICKETS}]}``
"""

from __future__ import annotations

from pathlib import Path

from palette.prompts.schemas import Schema
from palette.prompts.tables import TableRow


def subject_and_text(row: TableRow, path: Path) -> str:
    """The subject on a line of its own, then what is asked."""
    return f"{row.text('subject')}\n\n{row.text('body')}"


def closing_words(row: TableRow) -> tuple[str, ...]:
    """The reply with which a ticket was closed, if it was."""
    closed = row.values.get("closed_with")
    return (closed,) if isinstance(closed, str) and closed else ()


TICKETS = Schema(
    "tickets",
    ("subject", "body"),
    key="ticket",
    compose=subject_and_text,
    answer=closing_words,
    kind="benign",
)
"""Rows state their ``domain``, and their ``kind`` where they are not benign, or the source does."""
