"""Ways of restricting that control tokens are compared with: a policy in the prompt, and adapters."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from palette.mosaic.requests import Asked, Subset, ask, judged, replies_of
from palette.stages.assignment import Assignment
from torch.nn.functional import cross_entropy

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.internalise.loop import Checkpoint, Plan, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.judging.rules import RuleJudge
from palette.mosaic.examples import course
from palette.mosaic.outcomes import figures
from palette.mosaic.sampling import Sampling, subsets
from palette.prompts import messages
from palette.recipe import TokenRecipe, create_recipe, load_token_recipe
from palette.run import Run
from palette.shapes import Tensor
from palette.stages.tokens import assignment_of
from tools.organism.categories import CATEGORIES
from tools.organism.world import create_world

Replies = Callable[[Subset], list[list[int]]]


def opened(path: Path) -> tuple[TokenRecipe, Assignment, Asked]:
    """A recipe's assignment with answers, and its split with the backbone's own replies."""
    whole = load_token_recipe(path)
    run = Run(create_recipe(whole.basis), Path("runs") / "none")
    assignment = assignment_of(whole, run, answers=True)
    return whole, assignment, ask(assignment, whole.evaluate, whole.sign)


def by_orders(
    whole: TokenRecipe, backbone: Backbone, asked: Asked, replies: Replies, judge: RuleJudge
) -> dict[str, Any]:
    """The figures of a system by order, every subset asked the whole split."""
    orders: dict[str, Any] = {}
    worst: dict[str, float] = {}
    for order in range(1, whole.evaluate.orders + 1):
        found = {
            subset: judged(backbone, (whole.categories, whole.sign), judge, asked, subset, replies(subset))
            for subset in subsets(whole.categories, order)
        }
        counted = figures([one for group in found.values() for one in group])
        names = ("defence", "over_refusal", "utility", "utility_base", "unchanged")
        orders[str(order)] = {name: round(counted[name]["rate"], 4) for name in names}
        if "correct" in counted:
            orders[str(order)]["correct"] = round(counted["correct"]["rate"], 4)
        worst[str(order)] = min(figures(group)["defence"]["rate"] for group in found.values())
    return {"orders": orders, "worst_defence": worst}


def in_context(path: Path) -> dict[str, Any]:
    """A policy in a system prompt, in words that the organism knows."""
    whole, assignment, asked = opened(path)
    world = create_world(0)
    about = {one.name: one for one in CATEGORIES}

    def policy(name: str) -> str:
        words = world.words(about[name].domain)
        asked = " and the ".join(about[name].asked)
        return f"say no to a {words.spoken} request , for the {asked} of a {words.kinds[0]} ."

    def replies(subset: Subset) -> list[list[int]]:
        system = {"role": "system", "content": " ".join(map(policy, subset))}
        prompts = [assignment.backbone.render([system, *messages(row)]) for row in asked.rows]
        return replies_of(assignment.backbone, whole.evaluate, prompts, asked.roles)

    return {**by_orders(whole, assignment.backbone, asked, replies, RuleJudge()), "parameters": 0}


def supervised_lora(path: Path, home: Path) -> dict[str, Any]:
    """A LoRA a category, fine-tuned on the tokens' own data by cross-entropy, and summed for a subset."""
    whole, assignment, asked = opened(path)
    started, worked = time.monotonic(), time.process_time()
    adapters = {name: _fitted(whole, assignment, name, home / name) for name in whole.categories}
    seconds = {"wall": round(time.monotonic() - started, 1), "cpu": round(time.process_time() - worked, 1)}
    if (home / "seconds.json").is_file():
        seconds = json.loads((home / "seconds.json").read_text())
    (home / "seconds.json").write_text(json.dumps(seconds))
    backbone = assignment.backbone

    def replies(subset: Subset) -> list[list[int]]:
        with summed(backbone, [adapters[name] for name in subset]):
            return replies_of(backbone, whole.evaluate, asked.prompts, asked.roles)

    numbers = sum(m.lora_A.numel() + m.lora_B.numel() for a in adapters.values() for m in a.modules.values())
    found = by_orders(whole, backbone, asked, replies, RuleJudge())
    return {**found, "seconds": seconds, "parameters": numbers}


@contextmanager
def summed(backbone: Backbone, adapters: Sequence[Adapter]) -> Iterator[None]:
    """The exact sum of some adapters on the backbone."""
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(mounted(backbone.model, adapter))
        yield


def _fitted(whole: TokenRecipe, assignment: Assignment, name: str, folder: Path) -> Adapter:
    if folder.is_dir():
        return read_adapter(folder)
    backbone, settings = assignment.backbone, whole.train
    known = course(assignment, "restrict", settings)
    pools = Sampling((name,), 1, 2 * settings.positives).tasks(known.train, whole.seed)
    tasks = [task for pool in pools for task in pool]

    def loss(rows: list[int], step: list[int]) -> Tensor:
        chosen = [(known.examples[tasks[row].row], tasks[row].taught) for row in rows]
        replies = [lesson.taught if taught else lesson.own for lesson, taught in chosen]
        sequences = [[*lesson.prompt, *reply] for (lesson, _), reply in zip(chosen, replies, strict=True)]
        total = torch.zeros(())
        for batch in batches(sequences, backbone.pad, backbone.model.device):
            logits = forward(backbone, batch, max(len(replies[i]) for i in batch.rows) + 1).float()
            for i, row in zip(batch.rows, logits, strict=True):
                said = row[-len(replies[i]) - 1 : -1]
                total = total + cross_entropy(said, torch.tensor(replies[i]), reduction="sum")
        return total / sum(len(reply) for reply in replies)

    layers = lora_layers(backbone, range(2))
    halves = [range(len(pools[0])), range(len(pools[0]), len(tasks))]
    plan = Plan(160, 2e-3, halves, [16, 16], whole.seed)
    with trainable(backbone, layers, rank=8, seed=whole.seed) as model:
        train(lora_parameters(model), loss, plan, Checkpoint(folder.with_suffix(".st"), name, 10**9))
        adapter = read_out(model, backbone, layers)
    write_adapter(folder, adapter)
    return adapter
