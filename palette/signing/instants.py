"""Instants as text: UTC, to the second, as every signed statement writes them."""

from __future__ import annotations

from datetime import UTC, datetime

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def now() -> datetime:
    """The present instant, in UTC."""
    return datetime.now(UTC)


def told(instant: datetime) -> str:
    """An instant as text, such as 2026-11-30T12:00:00Z; what it has of a second is left out."""
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def instant(text: object) -> datetime:
    """The instant that a text tells; only the one form is read, so that nothing can be told in two ways.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(text, str):
        raise ValueError(f"an instant must be text, got {text!r}")
    found = datetime.strptime(text, _FORM).replace(tzinfo=UTC)
    if told(found) != text:
        raise ValueError(f"an instant must be written as 2026-11-30T12:00:00Z, got {text!r}")
    return found


def maybe(text: object) -> datetime | None:
    """The instant that a text tells, or None of None."""
    return None if text is None else instant(text)
