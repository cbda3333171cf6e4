"""How short a reply may be cut and still be told for a refusal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from pydantic import Field

from palette.judging.rules import RuleJudge
from palette.settings import Settings

TOLD = 0.99
"""The share of a backbone's refusals that must be told after as many tokens."""

Reply = Sequence[int]
Own = TypeVar("Own", bound="FloorReplies")


class FloorReplies(Settings):
    """How much is generated for floor prompts."""

    floor_tokens: int = Field(
        12,
        ge=4,
        description="tokens of a reply to a floor prompt: no content; more where refusals show later",
    )

    def showing(self: Own, tokens: int) -> Own:
        """The settings, with so many tokens at least."""
        return self.model_copy(update={"floor_tokens": max(self.floor_tokens, tokens)})


def tokens_to_tell(
    judge: RuleJudge, replies: Collection[Reply], decode: Callable[[list[int]], str], least: int
) -> int:
    """The fewest tokens, no less than ``least``, after which the refusals among whole replies are told.

    How many that are depends on the tokenizer and on the wording: twelve short pieces may be four words.
    """
    refusals = [reply for reply in map(list, replies) if judge.verdict(decode(reply)).label.refused]

    def told(limit: int) -> int:
        return sum(judge.verdict(decode(reply[:limit])).label.refused for reply in refusals)

    longest = max(map(len, refusals), default=least)
    limits = range(least, max(least, longest) + 1)
    return next(limit for limit in limits if told(limit) >= TOLD * len(refusals))
