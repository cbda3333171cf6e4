"""The jailbreak check of evaluate: kept prompts inside harmless frames, with and without the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from palette.authorisation import Role
from palette.evaluation.wrappers import WRAPPERS
from palette.prompts import Prompt, PromptSet, messages
from palette.run import Run

KEPT = (Role.PRESERVE, Role.FLOOR)


@dataclass(frozen=True)
class Wrapped:
    """Some prompts that must stay refused, each in every wrapper, rendered."""

    names: list[str]
    rows: list[Prompt]
    roles: list[Role]
    prompts: list[list[int]]


def wrap(run: Run, rows: PromptSet, most: int) -> Wrapped:
    """At most so many kept prompts a domain, kind and tier, in each wrapper.

    A prompt whose last message is not plain text is left out.
    """
    role = run.authorisation.role
    kept = rows.where(lambda row: role(row) in KEPT and isinstance(messages(row)[-1]["content"], str))
    kept = kept.capped(most)
    pairs = [(name, row) for name in WRAPPERS for row in kept]
    return Wrapped(
        [name for name, _ in pairs],
        [row for _, row in pairs],
        [role(row) for _, row in pairs],
        [run.backbone.render(framed(messages(row), WRAPPERS[name])) for name, row in pairs],
    )


def framed(chat: Sequence[dict[str, Any]], wrapper: Callable[[str], str]) -> list[dict[str, Any]]:
    """The chat with its last message inside the wrapper."""
    *before, last = chat
    return [*before, {**last, "content": wrapper(last["content"])}]
