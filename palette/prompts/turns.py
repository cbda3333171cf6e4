"""What a reader takes for the reply: thoughts, marks and turns that a model wrote on by itself set aside.

Chat models go on after the end of their turn where nothing stops them: the end stands as text, and behind
it the next question and an answer to it. All of that is no part of the reply, as thoughts are none.
"""

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


NAMES = "im_end|endoftext|end_of_text|eot_id|eom_id|end|return|end_of_turn|end_of_turn_token|endofturn|eos"
END = (
    rf"</s>|<\|(?:{NAMES})\|>|<(?:eos|end_of_turn|turn\|)>"
    r"|<[|\uff5c]end[\u2581_]of[\u2581_]sentence[|\uff5c]>"
)
"""Marks that end a turn, as chat templates write them."""

STRUCK = re.compile(r"<s>(.*?)</s>", re.IGNORECASE)
"""Text that is struck out, or a whole turn between its marks: of both the mark at the end ends nothing."""

OWN = (
    r"<\|im_start\|>\s*assistant\b|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"
    r"|<\|(?:start\|>\s*)?assistant(?:\|>)?|<start_of_turn>\s*model\b|<\|turn>\s*model\b|<[|\uff5c]assistant[|\uff5c]>"
    r"|\[/INST\]"
)
"""Marks that open the reply's own turn."""

OTHER = (
    r"<\|(?:im_start|start_header_id|start|user|system|human|observation|start_of_turn_token)\|>"
    r"|<start_of_turn>|<\|turn>|<[|\uff5c]user[|\uff5c]>|\[INST\]"
)
"""Marks that open a turn; where the reply's own is open, the next one."""

SPEAKER = r"^[ \t]*(?:#{1,6}[ \t]+|\*{1,2})?(?:user|human|question|q|instruction)(?:\*{1,2})?[ \t]*:"
"""A line on which somebody asks."""

ASSISTANT = r"(?:\*{1,2})?(?:assistant|ai|bot|chatbot)(?:\*{1,2})?[ \t]*:(?:\*{1,2})?"
UNQUOTED = r"(?<![`\"'\u201c\u2018])"
"""A mark that is spoken of stands between quotation marks, or as code."""

FLAGS = re.IGNORECASE | re.MULTILINE
LEADING = re.compile(rf"\A(?:\s*(?:{END}|{OWN}|{ASSISTANT}))+", FLAGS)
OVER = re.compile(rf"{UNQUOTED}(?:{END}|{OWN}|{OTHER})", FLAGS)
ASKED = re.compile(SPEAKER, FLAGS)
BARE = re.compile(r"^user\n(?=(?s:.+?)^assistant\n)", re.MULTILINE)
"""Names of roles on lines of their own: what is left of marks without their signs."""


def as_read(reply: str) -> str:
    """The reply as its reader takes it: without thoughts and marks, and up to the end of its own turn."""
    text = LEADING.sub("", STRUCK.sub(r"\1", without_thoughts(reply)))
    if over := OVER.search(text):
        text = text[: over.start()]
    for turn in (ASKED.search(text), BARE.search(text)):
        if turn and not _is_told(text[: turn.start()]):
            text = text[: turn.start()]
    return text.strip()


def _is_told(before: str) -> bool:
    """Whether turns belong to the reply: it begins with them, or announces them."""
    return not before.strip() or before.rstrip().rstrip("*_").endswith(":")
