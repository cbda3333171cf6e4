"""What a run takes, told before its model runs: the memory of each stage, and the minutes of all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from palette.backbones import Backbone
from palette.backbones.batching import growing_bytes
from palette.backbones.cache import stated_bytes_a_token
from palette.backbones.placement import pass_seconds, weight_bytes
from palette.backbones.seeing import KEPT
from palette.evaluation.baseline import REPLY_TOKENS as BASELINE_TOKENS
from palette.evaluation.subjects import COMPARED
from palette.internalise.effort import PASSES, SAID, TEACHING, TRAINING
from palette.internalise.examples import REPLY_TOKENS, SHARES, recalled_gib
from palette.internalise.methods import GRADIENT, gradient_gib
from palette.internalise.teachers import PROMPTS
from palette.prompts import PromptSet, messages
from palette.recipe import Recipe
from palette.search.settings import Audit, Scoring
from palette.search.sweeps import PASS_TOKENS
from palette.stages.collect import covariance_gib
from palette.stages.measuring import DIVERGENCE_PROMPTS
from palette.stages.measuring import PROMPTS as EVALUATED
from palette.stages.sketch import bytes_of
from palette.threads import LANES

LIBRARIES = 0.46
"""GiB that torch and what else is imported take by themselves."""
ALIKE = 0.1
"""The share of the weights by which a file of the same numbers may be larger: its header, and ties."""
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
    """Prompts of the train split that are read."""
    asked: int
    """Those of the split that is evaluated."""
    groups: int
    """Domains, each kind for itself."""
    pictures: int = 0
    """Pictures that differ."""
    stored: int = 0
    """Bytes of the files that hold the weights."""

    def said(self, limit: int) -> int:
        """Tokens that replies are taken to have: as many as prompts, and half of what they may at most."""
        return min(limit // 2, round(self.mean))


def sizes_of(backbone: Backbone, prompts: PromptSet, recipe: Recipe, files: Iterable[Path] = ()) -> Sizes:
    """The sizes of a run, from a few of its prompts; ``files`` hold the model's weights."""
    # With pictures they are longer than with any words.
    few = sorted(prompts, key=lambda row: (len(row.pictures), bytes_of(row)))
    spread = [len(backbone.render(messages(row))) for row in [*few[:: max(1, len(few) // SAMPLED)], few[-1]]]
    train = len(prompts.split("train").capped(recipe.at_most(PROMPTS)))
    asked = len(prompts.split(recipe.evaluate.split).capped(recipe.at_most(EVALUATED)))
    groups = len({(row.domain, row.kind, row.tier) for row in prompts})
    pictures = len({picture for row in prompts for picture in row.pictures})
    stored = sum(path.stat().st_size for path in files if path.is_file())
    return Sizes(sum(spread) / len(spread), spread[-1], train, asked, groups, pictures, stored)


def memory_of(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> dict[str, float]:
    """The most memory that each stage takes, in GiB: weights, and what is kept or grows beside them."""
    weights = weight_bytes(backbone.model, recipe.dtype)
    # What the tower makes of each picture, of no more tokens than the longest prompt.
    seen = min(KEPT, 4 * sizes.pictures * sizes.longest * backbone.width)
    own = LIBRARIES + (weights + seen) / 2**30
    # A file in the precision of the weights is they themselves; another one is read beside what it becomes.
    beside = sizes.stored if abs(sizes.stored - weights) > ALIKE * weights else 0
    loading = LIBRARIES + (weights + beside) / 2**30
    taught = min(recipe.reply_tokens, REPLY_TOKENS)

    def replies(prompts: int, limit: int) -> float:
        if recipe.device != "cpu":
            return 0.0
        token = stated_bytes_a_token(backbone)
        return growing_bytes(backbone, prompts, sizes.longest, limit, sizes.said(limit), token) / 2**30

    collecting = covariance_gib(backbone, recipe.memory_gib)
    grown = {
        "collect": max(replies(sizes.train, min(recipe.reply_tokens, BASELINE_TOKENS)), collecting),
        "search": max(replies(Audit.prompts, recipe.reply_tokens), _searched_gib(backbone, recipe, sizes)),
        "internalise": max(
            replies(sizes.train, taught), _taught_gib(backbone, recipe, sizes, sizes.said(taught))
        ),
        "evaluate": max(replies(sizes.asked, recipe.reply_tokens), _compared_gib(backbone, recipe, sizes)),
    }
    return {stage: max(loading, own + gib) for stage, gib in grown.items()}


def _searched_gib(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> float:
    """What a trial's prompts leave at every site, the backbone's logits of benign ones, and a pass's own."""
    scoring = recipe.search.conditions(recipe.limit, recipe.reply_tokens, recipe.memory_gib).scoring
    others = scoring.other_prompts * max(0, sizes.groups - 1)
    number = backbone.model.dtype.itemsize
    tokens = (scoring.target_prompts + others) * (sizes.mean + scoring.reply_tokens)
    streams = min(recipe.memory_gib / 2 * 2**30, tokens * backbone.layers * backbone.width * number)
    # Benign groups are about half of all.
    kept = others / 2 * scoring.reply_tokens * 4
    rows = max(1, PASS_TOKENS // (sizes.mean + scoring.answer_tokens))
    passing = LANES * rows * scoring.answer_tokens * (number + 3 * 4)
    return float(streams + backbone.vocabulary * (kept + passing)) / 2**30


def _taught_gib(backbone: Backbone, recipe: Recipe, sizes: Sizes, said: int) -> float:
    """What passes of a step keep for their gradient, what they are compared with, and what is recalled."""
    rows = sum(SHARES.values())
    read = round(rows * (sizes.mean + said)) + sizes.longest
    whole = gradient_gib(backbone, read, rows * said, sizes.longest + said)
    gradient = min(GRADIENT * recipe.memory_gib, whole)
    streams, number = read * backbone.layers * backbone.width, backbone.model.dtype.itemsize
    # What the backbone does, and how far from it the streams are, in single precision.
    compared = number * (streams + rows * said * backbone.vocabulary) + 4 * streams
    # As much of it at once as of the gradient.
    beside = compared / 2**30 * gradient / whole
    tokens, spoken = round(sizes.train * (sizes.mean + said)), sizes.train * said
    return gradient + beside + recalled_gib(backbone, tokens, spoken, backbone.layers, recipe.memory_gib)


def _compared_gib(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> float:
    """The logits of two subjects, in single precision, of the benign replies that are compared at once."""
    benign = recipe.at_most(DIVERGENCE_PROMPTS) * sizes.groups // 2
    logits = min(COMPARED, benign * sizes.said(recipe.reply_tokens) * backbone.vocabulary)
    return 2 * 4 * logits / 2**30


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
