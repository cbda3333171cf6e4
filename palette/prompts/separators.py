"""Which mark parts the columns of a table: spreadsheets write another one in every country."""

from __future__ import annotations

import csv
import io
import re
from itertools import islice

MARKS = (",", ";", "\t", "|")
STATED = re.compile(r'"?sep=([^\w"\r\n])"?[,;\t| ]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
"""A first line of some spreadsheets, which says the mark."""
SAMPLED, ROWS = 1 << 16, 8
"""Characters and rows of a table that are looked at."""


def separator_of(text: str, usual: str, width: int = 0) -> tuple[str, int]:
    """The mark between the columns of a table, and where its rows begin; ``width`` is how many it must have.

    A csv file is parted by what gives its first rows the same number of columns, and the most of them.
    """
    if stated := STATED.match(text):
        return stated[1], stated.end()
    if usual != ",":
        return usual, 0
    sample = text[:SAMPLED]
    head = next((line for line in sample.splitlines() if line.strip()), "")
    found = [mark for mark in MARKS if mark in head]
    widths = {mark: _width(sample, mark) for mark in found}
    fitting = [mark for mark in found if widths[mark] > 1 and width in (0, widths[mark])]
    if fitting:
        return max(fitting, key=lambda mark: widths[mark]), 0
    if usual in head or width or not found:
        return usual, 0
    return max(found, key=head.count), 0


def _width(sample: str, mark: str) -> int:
    """The columns of the first rows, or 0 where they have not the same number."""
    try:
        rows = [
            row for row in islice(csv.reader(io.StringIO(sample, newline=""), delimiter=mark), ROWS) if row
        ]
    except csv.Error:
        return 0
    widths = {len(row) for row in rows}
    return widths.pop() if len(widths) == 1 else 0
