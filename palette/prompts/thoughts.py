"""Thinking and tool marks of chat models: what stands between them is no part of the reply."""

from __future__ import annotations

import re
from collections.abc import Iterable

TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "seed:think")
"""Tags of thoughts, as ``<think>…</think>``."""

THOUGHT_MARKS = (
    *((f"<{tag}>", f"</{tag}>") for tag in TAGS),
    (r"\[think\]", r"\[/think\]"),
    ("◁think▷", "◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|start_thinking\|>", r"<\|end_thinking\|>"),
    # Gemma 4, whose closing mark is the opening one turned round, and its special tokens left out.
    (r"<\|channel\|?>\s*thought\b", r"<\|?channel\|>"),
    (r"\Athought\n", r"<\|?channel\|>"),
    # Harmony, and its special tokens left out.
    (r"<\|channel\|>\s*(?:analysis|commentary)\b", r"<\|channel\|>\s*final\s*(?:<\|message\|>)?"),
    (r"\A(?:analysis|commentary)(?=[A-Z])", r"assistantfinal"),
)
"""What opens thoughts and what closes them, as patterns; thoughts that are never closed run to the end."""

CALLS = (
    *((f"<{tag}>", f"</{tag}>") for tag in ("tool_call", "tool_calls", "function_call", "seed:tool_call")),
    (r"\[tool_calls\]", r"\Z"),
    (r"<\|tool_calls?(?:_begin|_section_begin)?\|>", r"<\|tool_calls?(?:_section)?_end\|>"),
    (r"<\|python_tag\|>", r"<\|eom_id\|>"),
)
"""The same of what is said to a tool and not to the reader."""


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.DOTALL | re.IGNORECASE)


INNER = _any_of(f"{opened}.*?(?:{closed}|\\Z)" for opened, closed in (*THOUGHT_MARKS, *CALLS))

BEGUN = _any_of(rf"\A.*{closed}" for _, closed in THOUGHT_MARKS[: len(TAGS) + 2])
"""Thoughts whose opening mark stood in the prompt, as some chat templates have it."""

LEFT = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*final\s*(?:<\|message\|>)?|<\|(?:return|end|message)\|>"
)
"""Marks of Harmony that stand around a reply without thoughts."""


def without_thoughts(reply: str) -> str:
    """The reply as its reader sees it: thoughts and calls of tools taken out."""
    return LEFT.sub(" ", INNER.sub(" ", BEGUN.sub(" ", INNER.sub(" ", reply)))).strip()
