"""What rows of the user's own say: the prompt as text or messages, the accepted answers, the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.prompts.rows import redacted
from palette.prompts.tables import TableRow

Content = str | tuple[tuple[tuple[str, str], ...], ...]


def stated_content(row: TableRow, path: Path) -> Content:
    """A row's prompt as it is kept: its text, or its messages.

    Raises:
        PromptError: if it is neither.
    """
    prompt = row.values.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return tuple(tuple(sorted(message.items())) for message in prompt)
    raise row.error(
        "prompt must be a text, or a list of {role, content} messages",
        got=type(prompt).__name__ if prompt else "an empty one",
    )


def stated_answers(row: TableRow) -> tuple[str, ...]:
    """The reference reply that a row states, and the others that it accepts.

    Raises:
        PromptError: if it is no text, or no list of such.
    """
    value = row.values.get("answer")
    answers = value if isinstance(value, list) else [value]
    if not answers or not all(isinstance(answer, str) and answer for answer in answers):
        raise row.error("answer must be a text that is not empty, or a list of such", got=redacted(value))
    return tuple(answers)


def answers_if_any(row: TableRow) -> tuple[str, ...]:
    """The same of a table, whose rows may leave the column empty."""
    return () if row.values.get("answer") in (None, "") else stated_answers(row)


def image_if_any(row: TableRow, path: Path) -> str | None:
    """The image that a row names; None where the column is empty or missing.

    Raises:
        PromptError: if it is no text.
    """
    image = row.values.get("image")
    if image not in (None, "") and not isinstance(image, str):
        raise row.error("image must be a text", got=type(image).__name__)
    return image or None


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) and value for value in message.values())
    )
