"""Variations: prompts nobody wrote, on which the student must be the backbone all the same.

What the student is to be on them needs no judge and no reply: the backbone's own streams and
probabilities. So they cost nothing to label, and stand for the wordings that nobody collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from palette.backbones import shared
from palette.internalise.examples import Example, Tokens


def crossed(examples: Sequence[Example], count: int, draw: Random) -> list[Example]:
    """So many prompts that begin as one example's and end as another's, with the latter's reply.

    What all prompts share, the chat template's beginning and end, stays whole.
    """
    if len(examples) < 2:
        return []
    parts = parted(examples)
    found = []
    for _ in range(count):
        first, second = draw.sample(range(len(examples)), 2)
        ahead, content, behind = parts[second]
        begun = parts[first][1]
        middle = (*begun[: draw.randint(0, len(begun))], *content[draw.randint(0, len(content)) :])
        whole = (*ahead, *middle, *behind)
        found.append(replace(examples[second], prompt=whole, taught=False))
    return found


def framed(
    examples: Sequence[Example], count: int, draw: Random, words: Sequence[int], most: int = 4
) -> list[Example]:
    """So many examples with up to ``most`` random words before the prompt's content, and behind it."""
    if not examples:
        return []
    parts = parted(examples)
    found = []
    for _ in range(count):
        place = draw.choice(range(len(examples)))
        ahead, content, behind = parts[place]
        first, last = (draw.choices(words, k=draw.randint(0, most)) for _ in range(2))
        found.append(replace(examples[place], prompt=(*ahead, *first, *content, *last, *behind)))
    return found


def parted(examples: Sequence[Example]) -> list[tuple[Tokens, Tokens, Tokens]]:
    """Each prompt as what all begin with, its own content, and what all end with."""
    prompts = [example.prompt for example in examples]
    before = shared(prompts)
    after = shared([prompt[before:][::-1] for prompt in prompts])
    cuts = ((prompt, len(prompt) - after) for prompt in prompts)
    return [(prompt[:before], prompt[before:end], prompt[end:]) for prompt, end in cuts]
