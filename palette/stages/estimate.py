"""What a run takes, told before its model runs: the memory of each stage, and the minutes of all."""

from __future__ import annotations

from typing import NamedTuple

from palette.backbones import Backbone
from palette.backbones.batching import CPU_BYTES
from palette.backbones.cost import pass_seconds
from palette.backbones.placement import weight_bytes
from palette.backbones.seeing import KEPT
from palette.evaluation.baseline import REPLY_TOKENS as BASELINE_TOKENS
from palette.evaluation.subjects import COMPARED
from palette.internalise.effort import PASSES, SAID, TEACHING, TRAINING
from palette.internalise.examples import SHARES, recalled_gib
from palette.internalise.methods import GRADIENT, gradient_gib
from palette.internalise.teachers import REPLY_TOKENS
from palette.prompts import Prompt, PromptSet, messages
from palette.recipe import Recipe
from palette.search.settings import Audit, Scoring
from palette.stages.collect import covariance_gib

LIBRARIES = 0.6
"""GiB that torch and what else is imported take by themselves."""
SAMPLED = 64
"""Prompts that are rendered to learn how long they are."""
LEAST_SECONDS = 150.0
"""What the smallest model takes: it waits for the interpreter."""
SCORED, DRAWN = 0.6, 400
"""The share of its prompts that a trial is scored on at last, and how many refusals are drawn."""


class Sizes(NamedTuple):
    """What a run's time and memory depend on."""

    mean: float
    """Tokens of a prompt."""
    longest: int
    train: int
    asked: int
    """Prompts of the split that is evaluated."""
    groups: int
    """Domains, each kind for itself."""
    pictures: int = 0
    """Pictures that differ."""


def sizes_of(backbone: Backbone, prompts: PromptSet, recipe: Recipe) -> Sizes:
    """The sizes of a run, from a few of its prompts."""
    # With pictures they are longer than with any words.
    few = sorted(prompts, key=lambda row: (len(row.pictures), bytes_of(row)))
    spread = [len(backbone.render(messages(row))) for row in [*few[:: max(1, len(few) // SAMPLED)], few[-1]]]
    train, asked = (len(prompts.split(name)) for name in ("train", recipe.evaluate.split))
    groups = len({(row.domain, row.kind, row.tier) for row in prompts})
    pictures = len({picture for row in prompts for picture in row.pictures})
    return Sizes(sum(spread) / len(spread), spread[-1], train, asked, groups, pictures)


def bytes_of(row: Prompt) -> int:
    """How long a prompt is."""
    return sum(len(str(message["content"]).encode()) for message in messages(row))


def memory_of(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> dict[str, float]:
    """The most memory that each stage takes, in GiB: weights, and what is kept or grows beside them."""
    own = LIBRARIES + weight_bytes(backbone.model, recipe.dtype) / 2**30
    # What the tower makes of each, of no more tokens than the longest prompt.
    own += min(KEPT, 4 * sizes.pictures * sizes.longest * backbone.width) / 2**30
    said, rows = min(recipe.reply_tokens, REPLY_TOKENS), sum(SHARES.values())
    read = round(rows * (sizes.mean + said)) + sizes.longest
    whole = gradient_gib(backbone, read, rows * said, sizes.longest + said)
    gradient = min(GRADIENT * recipe.memory_gib, whole)
    tokens, spoken = round(sizes.train * (sizes.mean + said)), sizes.train * said
    recalled = recalled_gib(backbone, tokens, spoken, backbone.layers, recipe.memory_gib)
    replies = CPU_BYTES / 2**30 if recipe.device == "cpu" else 0.0
    # Of two subjects that are compared, in single precision.
    compared = 2 * 4 * COMPARED / 2**30
    return {
        "collect": own + max(replies, covariance_gib(backbone, recipe.memory_gib)),
        "search": own + max(replies, recipe.memory_gib / 2),
        "internalise": own + max(replies, gradient + recalled),
        "evaluate": own + replies + compared,
    }


def minutes_of(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> float:
    """The minutes that a usual machine takes for all stages, roughly."""

    def asked(rows: float, said: float) -> float:
        return rows * (sizes.mean + SAID * said)

    collected = asked(sizes.train, BASELINE_TOKENS) + sizes.train * sizes.mean + asked(DRAWN, BASELINE_TOKENS)
    panel = Scoring.target_prompts + Scoring.other_prompts * sizes.groups
    searched = SCORED * recipe.search.trials * panel * (sizes.mean + Scoring.answer_tokens)
    prepared, evaluated = asked(sizes.train, REPLY_TOKENS), 2 * asked(sizes.asked, recipe.reply_tokens / 2)
    # A sketch is on no device.
    one = pass_seconds(backbone, recipe.device.partition(":")[0])
    passes = one * (collected + searched + prepared + evaluated)
    examples = recipe.internalise.steps * sum(SHARES.values()) * (sizes.mean + REPLY_TOKENS)
    taught = min(TRAINING, PASSES * one * examples) + min(TEACHING, passes)
    return (LEAST_SECONDS + passes + taught + min(Audit.seconds, passes)) / 60
