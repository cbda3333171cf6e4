"""What of a value may stand in an error: a label may, a text that could be a prompt may not."""

from __future__ import annotations

LONGEST = 24
"""Characters of the longest value that is shown; labels are short and of one word."""
ID = 160
"""The same for an id, which has a source's name before it."""


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as an error may show it: a short word as it is, anything else by kind and length.

    Rows of tier C pass through every loader, and a mistaken column can put their text anywhere.
    """
    text = repr(value)
    if len(text) <= longest and not any(mark.isspace() for mark in str(value)):
        return text
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    return f"a value of type {type(value).__name__}"
