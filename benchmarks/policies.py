"""Ways of restricting that control tokens are compared with: a policy in the prompt, and adapters."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.evaluation.outcomes import judged
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject
from palette.internalise.loop import Checkpoint, Plan, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.judging.rules import RuleJudge
from palette.mosaic.evaluation import ORDERS, SubsetPlan, asked_of, figures, grouped
from palette.mosaic.examples import Sampling, Subset, subsets, token_examples
from palette.mosaic.settings import PLAN
from palette.prompts import messages
from palette.recipe import TokenRecipe, load_token_recipe
from palette.run import Run
from palette.shapes import Tensor
from tools.organism.categories import CATEGORIES
from tools.organism.world import create_world

RepliesOf = Callable[[Subset], list[list[int]]]
"""A system's replies to a split under one subset."""


@dataclass(frozen=True)
class Split:
    """The split that a recipe of tokens is evaluated on, with the backbone's own replies."""

    run: Run[TokenRecipe]
    requests: Requests
    limits: list[int]
    own: list[list[int]]

    @classmethod
    def of(cls, path: Path) -> Split:
        """The split of a recipe."""
        recipe = load_token_recipe(path)
        run = Run(recipe, Path("runs") / "none")
        requests, limits = asked_of(run, recipe.sign, SubsetPlan(recipe.evaluate.split))
        own = Replies().of(Subject(run.backbone), requests.prompts, limits)
        return cls(run, requests, limits, own)

    def replies(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """The replies of the backbone, as it is mounted now, to as many prompts as the split has."""
        return Replies().of(Subject(self.run.backbone), prompts, self.limits)


def by_orders(split: Split, replies: RepliesOf, judge: RuleJudge) -> dict[str, Any]:
    """The figures of a system by order, every subset asked the whole split."""
    orders: dict[str, Any] = {}
    worst: dict[str, float] = {}
    recipe = split.run.recipe
    for order in range(1, ORDERS + 1):
        groups = []
        for subset in subsets(recipe.categories, order):
            replied = replies(subset)
            outcomes = judged(split.run.backbone, split.requests, judge, split.own, replied).outcomes
            same = [before == after for before, after in zip(split.own, replied, strict=True)]
            groups.append(grouped(split.requests, outcomes, same, subset, (recipe.categories, recipe.sign)))
        counted = figures([outcome for group in groups for outcome in group])
        names = ("defence", "over_refusal", "utility", "utility_base", "unchanged")
        orders[str(order)] = {name: round(counted[name]["rate"], 4) for name in names}
        if "correct" in counted:
            orders[str(order)]["correct"] = round(counted["correct"]["rate"], 4)
        worst[str(order)] = min(figures(group)["defence"]["rate"] for group in groups)
    return {"orders": orders, "worst_defence": worst}


def in_context(path: Path) -> dict[str, Any]:
    """A policy in a system prompt, in words that the organism knows."""
    split, world = Split.of(path), create_world(0)
    about = {category.name: category for category in CATEGORIES}

    def policy(name: str) -> str:
        words = world.words(about[name].domain)
        attributes = " and the ".join(about[name].asked)
        return f"say no to a {words.spoken} request , for the {attributes} of a {words.kinds[0]} ."

    def replies(subset: Subset) -> list[list[int]]:
        system = {"role": "system", "content": " ".join(map(policy, subset))}
        rows = split.requests.rows
        return split.replies([split.run.backbone.render([system, *messages(row)]) for row in rows])

    return {**by_orders(split, replies, RuleJudge()), "parameters": 0}


def supervised_lora(path: Path, home: Path) -> dict[str, Any]:
    """A LoRA a category, fine-tuned on the tokens' own data by cross-entropy, and summed for a subset."""
    split = Split.of(path)
    started, worked = time.monotonic(), time.process_time()
    adapters = {name: _fitted(split.run, name, home / name) for name in split.run.recipe.categories}
    seconds = {"wall": round(time.monotonic() - started, 1), "cpu": round(time.process_time() - worked, 1)}
    if (home / "seconds.json").is_file():
        seconds = json.loads((home / "seconds.json").read_text())
    (home / "seconds.json").write_text(json.dumps(seconds))
    return {**summed_by_orders(split, adapters, RuleJudge()), "seconds": seconds}


def summed_by_orders(split: Split, adapters: Mapping[str, Adapter], judge: RuleJudge) -> dict[str, Any]:
    """The figures of the exact sum of each subset's adapters, by order, and how many numbers they have."""

    def replies(subset: Subset) -> list[list[int]]:
        with summed(split.run.backbone, [adapters[name] for name in subset]):
            return split.replies(split.requests.prompts)

    numbers = sum(m.lora_A.numel() + m.lora_B.numel() for a in adapters.values() for m in a.modules.values())
    return {**by_orders(split, replies, judge), "parameters": numbers}


@contextmanager
def summed(backbone: Backbone, adapters: Sequence[Adapter]) -> Iterator[None]:
    """The exact sum of some adapters on the backbone."""
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(mounted(backbone.model, adapter))
        yield


def _fitted(run: Run[TokenRecipe], name: str, folder: Path) -> Adapter:
    if folder.is_dir():
        return read_adapter(folder)
    backbone, known = run.backbone, token_examples(run, run.recipe.train)
    pools = Sampling((name,), 1, 2 * PLAN.positives).tasks(known.train, run.seed)
    tasks = [task for pool in pools for task in pool]

    def loss(rows: list[int], step: list[int]) -> Tensor:
        chosen = [(known.examples[tasks[row].row], tasks[row].taught) for row in rows]
        replies = [example.taught if taught else example.own for example, taught in chosen]
        sequences = [[*example.prompt, *reply] for (example, _), reply in zip(chosen, replies, strict=True)]
        total = torch.zeros(())
        for batch in batches(sequences, backbone.pad, backbone.model.device):
            logits = forward(backbone, batch, max(len(replies[i]) for i in batch.rows) + 1).float()
            for i, row in zip(batch.rows, logits, strict=True):
                said = row[-len(replies[i]) - 1 : -1]
                total = total + cross_entropy(said, torch.tensor(replies[i]), reduction="sum")
        return total / sum(len(reply) for reply in replies)

    layers = lora_layers(backbone, range(2))
    halves = [range(len(pools[0])), range(len(pools[0]), len(tasks))]
    plan = Plan(160, 2e-3, halves, [16, 16], run.seed)
    with trainable(backbone, layers, rank=8, seed=run.seed) as model:
        train(lora_parameters(model), [loss], plan, Checkpoint(folder.with_suffix(".st"), name, 10**9))
        adapter = read_out(model, backbone, layers)
    write_adapter(folder, adapter)
    return adapter
