"""The runs verb."""

from __future__ import annotations


def runs() -> None:
    """Stub."""
