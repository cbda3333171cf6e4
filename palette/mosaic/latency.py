"""What a prefix of control tokens adds to the time of a reply."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from palette.backbones import greedy_replies
from palette.mosaic.mounting import Controlled

ROUNDS, REPLY = 5, 8
"""Rounds of a measurement, and tokens of a reply."""


def latencies(controlled: Controlled, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """What a prefix costs: the median time of a reply as a ratio to the bare backbone's, by order.

    ``plain`` is the same number of ordinary prompt tokens in the prefix's place; rounds are taken in turn.
    """
    found: dict[str, Any] = {}
    if not prompts:
        return found
    for order in range(1, min(4, len(controlled.tokens.categories)) + 1):
        subset = controlled.tokens.categories[:order]
        count = order * controlled.tokens.slots
        ways = {
            "bare": list(prompts),
            "tokens": [controlled.prefixed(prompt, subset) for prompt in prompts],
            "plain": [[*([prompt[-1]] * count), *prompt] for prompt in prompts],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, asked in ways.items():
                started = time.perf_counter()
                for prompt in asked:
                    greedy_replies(controlled, [prompt], REPLY)
                seconds[name].append(time.perf_counter() - started)
        ratios = {
            name: median(a / b for a, b in zip(own, seconds["bare"], strict=True))
            for name, own in seconds.items()
        }
        found[str(order)] = {
            "prefix_tokens": count,
            "ratio": round(ratios["tokens"], 4),
            "ratio_plain": round(ratios["plain"], 4),
        }
    return found
