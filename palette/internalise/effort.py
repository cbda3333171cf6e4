"""How much of the work a model is worth within a stated time: rows of a step, steps, and teachers.

A model of a few million parameters is taught with all that helps. One that a pass costs a hundred times as
much would be taught for a day; it is given what fits into the time of a usual machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palette.backbones import Backbone
from palette.backbones.placement import pass_seconds
from palette.internalise.examples import SHARES, Example
from palette.internalise.loop import DECAY

TRAINING, TEACHING, TRYING = 1000.0, 360.0, 60.0
"""Seconds of a usual machine: of a student, of what its teachers say, and of trying who may teach."""
TRIED, LEAST_TRIED, SAID = 16, 4, 2.5
"""Trials that are tried as teachers, at most and at least; and tokens read that cost as much as one said."""
PASSES = 3.7
"""What a token of a step costs, in passes of a large batch: one without the adapter, one with it, and its
gradient, each in batches that fit into memory."""
MOST, FEWEST, SELF = 6, 2, 2
"""Trials that teach at most, and at least; and how often the plain backbone speaks beside them."""
FEWEST_ROWS, FEWEST_STEPS = 20, DECAY
"""Of a step, and of a student: fewer teach too little of any pool."""


def affordable(
    backbone: Backbone, examples: Sequence[Example], pools: Mapping[str, Sequence[int]], steps: int
) -> tuple[int, dict[str, int]]:
    """The steps at most, and the examples of each pool a step, that fit into the time of a training.

    Both as asked where they fit; else fewer steps, and then fewer examples of each pool alike.
    """
    used = {name: share for name, share in SHARES.items() if pools.get(name)}
    mean = sum(len(example.ids) for example in examples) / max(1, len(examples))
    # Of all steps together.
    rows = TRAINING / (PASSES * pass_seconds(backbone) * max(1.0, mean))
    if steps * sum(used.values()) <= rows:
        return steps, dict(SHARES)
    steps = max(min(steps, FEWEST_STEPS), min(steps, int(rows / sum(used.values()))))
    wanted = max(FEWEST_ROWS, rows / steps)
    part = min(1.0, wanted / sum(used.values()))
    return steps, {name: max(1, round(part * share)) for name, share in SHARES.items()}


def teaching(backbone: Backbone, prompts: Sequence[Sequence[int]], reply_tokens: int) -> tuple[int, int]:
    """How many trials may teach so many target prompts at most, and how many more prompts they may teach.

    Each speaks to every prompt, and each says how likely it finds what every other one said.
    """
    length = sum(map(len, prompts)) / max(1, len(prompts)) + reply_tokens
    tokens = TEACHING / pass_seconds(backbone)

    def taught(teachers: int) -> int:
        # The plain backbone speaks and judges beside them, once more behind an opening.
        return int(tokens / (length * (teachers + SELF) ** 2))

    count = next((each for each in range(MOST, FEWEST, -1) if taught(each) >= len(prompts)), FEWEST)
    return count, max(0, taught(count) - len(prompts))


def tried(backbone: Backbone, prompts: Sequence[Sequence[int]], reply_tokens: int) -> int:
    """How many trials may be tried as teachers on so many prompts."""
    tokens = sum(len(prompt) + SAID * reply_tokens for prompt in prompts)
    return max(LEAST_TRIED, min(TRIED, int(TRYING / (tokens * pass_seconds(backbone)))))
