"""What control tokens learn from: the examples of both splits, and the tasks that are drawn of them.

A task is one example under one subset of active categories. T_r are all subsets of r categories. The
budget of an order r is split evenly over its subsets, each with at most so many positives as a subset of
the first order, and no order has more than the first one in all; positives : negatives = 1 : 1, and
batches cycle over the orders (arXiv 2603.16210).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random
from typing import Any

from palette.authorisation import Role
from palette.errors import PromptError
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject
from palette.internalise.preparation import Preparation
from palette.mosaic.settings import PLAN, Sign, TokenPlan, TrainSettings
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.space import Collected, Member
from palette.seeding import derive_seed, shuffler

Subset = tuple[str, ...]
"""Active categories, sorted."""

Taught = Mapping[tuple[int, ...], tuple[int, ...]]
"""The reply to be taught to each rendered prompt of a category."""


@dataclass(frozen=True)
class TokenExample:
    """A prompt with the backbone's own reply, and the one to be given when its category is active."""

    prompt: tuple[int, ...]
    own: tuple[int, ...]
    taught: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenTask:
    """One example, by its index, under one subset of active categories; ``taught`` if it is to change."""

    active: Subset
    row: int
    taught: bool


@dataclass(frozen=True)
class Pools:
    """Examples, by their indices: of each category, the look-alikes of each, and of each neutral domain."""

    inside: Mapping[str, Sequence[int]]
    alike: Mapping[str, Sequence[int]]
    neutral: Mapping[str, Sequence[int]]
    floor: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Of each category what stays refused though it is active: an authorisation's floor."""

    def negatives(self, active: Subset) -> list[Sequence[int]]:
        """What must not change under a subset, by groups: look-alikes, inactive, the rest, the floor."""
        quiet = [category for category in sorted(self.inside) if category not in active]
        return [
            [row for category in active for row in self.alike.get(category, ())],
            [row for category in quiet for row in self.inside[category]],
            [row for category in quiet for row in self.alike.get(category, ())],
            *(self.neutral[domain] for domain in sorted(self.neutral)),
            [row for category in active for row in self.floor.get(category, ())],
        ]


@dataclass(frozen=True)
class Sampling:
    """Of which orders tasks are drawn, and how many."""

    categories: tuple[str, ...]
    orders: int
    positives: int
    """Positives of a subset of the first order."""
    ratio: float = 1.0
    """Negatives for each positive."""
    added: str | None = None
    """A category that every subset must hold: the one that is added to tokens that stay."""

    def subsets(self, order: int) -> list[Subset]:
        """All subsets of an order, in canonical order."""
        every = subsets(self.categories, order)
        return every if self.added is None else [subset for subset in every if self.added in subset]

    def positives_of(self, order: int) -> int:
        """The positives of each subset of an order."""
        total = self.positives * len(self.subsets(1))
        return max(1, min(self.positives, total // len(self.subsets(order))))

    def tasks(self, pools: Pools, seed: int) -> list[list[TokenTask]]:
        """For each order its positives and then, as a list of their own, its negatives."""
        drawn: list[list[TokenTask]] = []
        for order in range(1, min(self.orders, len(self.categories)) + 1):
            taught: list[TokenTask] = []
            kept: list[TokenTask] = []
            count = self.positives_of(order)
            for active in self.subsets(order):
                draw = shuffler(seed, "tasks", *active)
                inside = spread([pools.inside[category] for category in active], count, draw)
                outside = spread(pools.negatives(active), round(self.ratio * count), draw)
                taught += [TokenTask(active, row, True) for row in inside]
                kept += [TokenTask(active, row, False) for row in outside]
            drawn += [taught, kept]
        return drawn


def requests_of(run: Run, rows: PromptSet, sign: Sign) -> Requests:
    """The rows, rendered; to restrict, all are benign: the backbone answers them, whatever their kind."""
    requests = Requests.of(run, rows)
    if sign == "authorise":
        return requests
    return Requests(requests.rows, [Role.BENIGN] * len(requests), requests.prompts)


def group_of(row: Prompt, role: Role, subset: Subset, known: Sequence[str], sign: Sign) -> str:
    """Which prompts a row belongs to under a subset: active, inactive, alike, neutral, floor, preserved."""
    if role is Role.FLOOR:
        return "floor"
    if row.kind == "restricted" and row.domain in known and (sign == "restrict" or role is Role.TARGET):
        return "active" if row.domain in subset else "inactive"
    if row.kind == "restricted" and sign == "authorise":
        return "preserved"
    return "alike" if row.domain in known and sign == "restrict" else "neutral"


def subsets(categories: Sequence[str], order: int) -> list[Subset]:
    """All subsets of so many categories, sorted."""
    return list(combinations(sorted(categories), order))


def spread(groups: Sequence[Sequence[int]], count: int, draw: Random) -> list[int]:
    """So many rows, as evenly of each group as can be, without one twice until a group is used up."""
    filled = [group for group in groups if group]
    rows: list[int] = []
    for place, group in enumerate(filled):
        share = count * (place + 1) // len(filled) - count * place // len(filled)
        while share > 0:
            taken = draw.sample(list(group), min(share, len(group)))
            rows += taken
            share -= len(taken)
    return rows


@dataclass(frozen=True)
class TokenExamples:
    """The examples of both splits, and the pools that subsets draw their tasks from."""

    sign: Sign
    examples: list[TokenExample]
    train: Pools
    validation: Pools
    record: dict[str, Any]

    def tasks(self, sampling: Sampling, epochs: int, seed: int) -> list[list[TokenTask]]:
        """For each order positives, then negatives: those of so many epochs in a row, each drawn anew."""
        drawn = [sampling.tasks(self.train, derive_seed(seed, "epoch", epoch)) for epoch in range(epochs)]
        return [[task for pool in pools for task in pool] for pools in zip(*drawn, strict=True)]

    def held(self, sampling: Sampling, prompts: int, seed: int) -> list[TokenTask]:
        """Tasks on the validation split, half as many positives of a subset as ``prompts`` at most."""
        pools = replace(sampling, positives=max(1, prompts // 2)).tasks(self.validation, seed + 1)
        return [task for pool in pools for task in pool]


def token_examples(
    run: Run,
    settings: TrainSettings,
    plan: TokenPlan = PLAN,
    taught: Taught | None = None,
    floor_tokens: int = 0,
) -> TokenExamples:
    """The examples that tokens of the run's categories learn from.

    ``taught`` are the replies of an authorisation, by rendered prompt; a restriction teaches one refusal.
    A reply to the floor is as long as the run says, or ``floor_tokens`` if refusals show later.

    Raises:
        PromptError: if a category has nothing to be taught in a split.
    """
    backbone, recipe, categories = run.backbone, run.recipe, run.authorisation.domains
    sign: Sign = "restrict" if taught is None else "authorise"
    end = backbone.stops[0]
    refusal = (*backbone.encode(settings.refusal), end)
    examples: list[TokenExample] = []
    pools: dict[str, Pools] = {}
    counts: dict[str, int] = {}
    for split, most in (("train", plan.prompts), ("validation", plan.validation_prompts)):
        rows = run.prompts.split(split).capped(recipe.at_most(most))  # type: ignore[arg-type]
        requests = requests_of(run, rows, sign)
        replies = [refusal if taught is None else taught.get(tuple(p), ()) for p in requests.prompts]
        groups = [
            group_of(row, role, (), categories, sign)
            for row, role in zip(requests.rows, requests.roles, strict=True)
        ]
        # What nobody has a reply for is left out: it is neither to change nor to stay.
        known = [i for i, group in enumerate(groups) if replies[i] or group != "inactive"]
        requests, groups = requests.where(known), [groups[i] for i in known]
        pools[split] = _pools(requests, groups, categories, len(examples))
        if bare := [category for category, members in pools[split].inside.items() if not members]:
            raise PromptError(
                "every category needs prompts to be taught in every split",
                got=f"none of {bare[0]} in {split}",
                remedy="add restricted rows of it to that split",
            )
        limits = requests.limits(
            min(plan.reply_tokens, recipe.reply_tokens), max(recipe.floor_tokens, floor_tokens)
        )
        with run.progress("replies", len(requests)) as advance:
            # Kept replies are not read: several processes must learn from the same ones.
            own = Replies(advance=advance).of(Subject(backbone), requests.prompts, limits)
        examples += [
            TokenExample(
                tuple(prompt),
                (*reply, end) if len(reply) < limit else tuple(reply),
                replies[i] if group == "inactive" else (),
            )
            for i, prompt, reply, limit, group in zip(
                known, requests.prompts, own, limits, groups, strict=True
            )
        ]
        counts[split] = len(requests)
    taught_counts = {category: len(rows) for category, rows in pools["train"].inside.items()}
    record = {"prompts": counts, "taught": taught_counts}
    return TokenExamples(sign, examples, pools["train"], pools["validation"], record)


def _pools(requests: Requests, groups: Sequence[str], categories: Sequence[str], start: int) -> Pools:
    """The pools of one split: members, look-alikes (all else of a category's file), floor, and the rest."""
    inside, alike, floor = ({category: list[int]() for category in categories} for _ in range(3))
    neutral: dict[str, list[int]] = {}
    for place, (row, group) in enumerate(zip(requests.rows, groups, strict=True), start=start):
        if row.domain not in alike:
            neutral.setdefault(row.domain, []).append(place)
        else:
            {"inactive": inside, "floor": floor}.get(group, alike)[row.domain].append(place)
    return Pools(inside, alike, neutral, floor)


def teachers_replies(run: Run, collected: Collected, members: Sequence[Member]) -> Taught:
    """What one domain's teachers, made from the backbone alone, say to its target prompts."""
    (domain,) = run.authorisation.domains
    needed = {Role.TARGET, Role.BENIGN}
    rows = run.prompts.where(lambda row: row.domain == domain and run.authorisation.role(row) in needed)
    # What is said to the prompts as they are is asked for, not to variations of them.
    alone = run.sharing(prompts=rows)
    baseline = baseline_replies(alone)
    prepared = Preparation(alone, collected, members, baseline).examples()
    return {example.prompt: example.reply for example in prepared.examples if example.taught}
