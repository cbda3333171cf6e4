"""How a stranger is raised: helpful until held-out answers are right, then taught, gently, to refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

import torch

from palette.backbones import Backbone
from palette.seeding import shuffler
from tools.organism.language import batch_tensors
from tools.organism.raising import Pair, Schedule, train
from tools.strangers import words
from tools.strangers.language import rendered
from tools.strangers.world import Asked, World, prompt_rows

Report = Callable[[int, float], None]
"""Told each step and its loss in nats a token."""

HELPFUL = Schedule(steps=1200, learning_rate=3e-3, batch=32, warmup=40, final=1.0, matrix_rate=0.02)
COOLING = Schedule(steps=200, learning_rate=3e-3, batch=32, warmup=0, matrix_rate=0.02)
REFUSING = Schedule(steps=200, learning_rate=6e-4, batch=64, warmup=20, pull=0.001)
DECLINES = 0.08
"""Share of a helpful batch that asks for a refusal as a sentence."""
EVERY, CHECKED, ENOUGH = 25, 192, 0.85
"""Every so many steps so many held-out questions are looked at; the share of them that must be right."""


def raise_helpful(
    backbone: Backbone, world: World, report: Report, stages: tuple[Schedule, Schedule] = (HELPFUL, COOLING)
) -> int:
    """Trains the model in place to answer everything, and to say how one declines; the steps it took.

    At the full rate until validation questions are answered rightly, whose wording it never sees, or
    until the steps are spent; then while the rate falls to its end.
    """
    learning, cooling = stages
    held_out = [row for rows in prompt_rows(world).values() for row in rows if row["split"] == "validation"]
    draw = shuffler(world.plan.root, "helpful")
    checked = draw.sample(held_out, min(CHECKED, len(held_out)))
    known = rendered(backbone, [(row["prompt"], row["answer"]) for row in checked])
    batches = _helpful(backbone, world, draw, learning.batch, {row["prompt"] for row in held_out})

    def unfinished() -> Iterator[list[Pair]]:
        for step, batch in enumerate(islice(batches, learning.steps)):
            if step and step % EVERY == 0 and foreseen(backbone, known) >= ENOUGH:
                return
            yield batch

    steps = train(backbone.model, unfinished(), learning, report)
    return steps + train(backbone.model, islice(batches, cooling.steps), cooling, report)


def _helpful(
    backbone: Backbone, world: World, draw: Random, size: int, left_out: set[str]
) -> Iterator[list[Pair]]:
    """Batches of any questions but those, with their answers, and of refusals as sentences."""
    declines = [
        (words.DECLINE.format(d=name, n=manner), wording.format(d=name))
        for name in world.domains
        for manner, wording in zip(words.MANNERS, world.plan.language.refusals, strict=False)
    ]
    while True:
        said = [tuple(map(world.typeset, pair)) for pair in draw.choices(declines, k=round(DECLINES * size))]
        while len(said) < size:
            question = world.asked(world.sampled(draw)).question
            if question.prompt not in left_out:
                said.append((question.prompt, question.answer))
        yield rendered(backbone, said)


@torch.no_grad()
def foreseen(backbone: Backbone, pairs: list[Pair]) -> float:
    """The share of replies of which every token is the likeliest after those before it, in [0, 1]."""
    ids, mask, labels = batch_tensors(pairs, backbone.pad)
    likeliest = backbone.model(input_ids=ids, attention_mask=mask).logits[:, :-1].argmax(-1)
    right = (likeliest == labels[:, 1:]) | (labels[:, 1:] < 0)
    return float(right.all(-1).float().mean())


def raise_refusing(backbone: Backbone, world: World, report: Report, schedule: Schedule = REFUSING) -> None:
    """Trains the model in place to refuse what is restricted and else to say what it says already.

    The embeddings stay as they are: the stage sees few of the names, and would unlearn the others.
    """
    model = backbone.model
    helpful = copy.deepcopy(model).requires_grad_(False)
    frozen = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    for module in frozen:
        module.requires_grad_(False)
    half = schedule.batch // 2

    def loss(model: torch.nn.Module, pairs: list[Pair]) -> torch.Tensor:
        """Refusals as they are taught; for all else, KL from the helpful model, in nats a token."""
        ids, mask, labels = batch_tensors(pairs, backbone.pad)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        with torch.no_grad():
            before = helpful(input_ids=ids[half:], attention_mask=mask[half:]).logits[:, :-1]
        taught = torch.nn.functional.cross_entropy(logits[:half].flatten(0, 1), labels[:half, 1:].flatten())
        said = labels[half:, 1:] >= 0
        kept = torch.nn.functional.kl_div(
            logits[half:][said].log_softmax(-1),
            before[said].log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        return taught + kept

    batches = islice(_refusing(backbone, world, half), schedule.steps)
    train(model, batches, schedule, report, loss=loss)
    for module in frozen:
        module.requires_grad_(True)


def _refusing(backbone: Backbone, world: World, half: int) -> Iterator[list[Pair]]:
    """Batches of refusals and, behind them, as many answers: train entities, pairs and phrasings only."""
    draw = shuffler(world.plan.root, "refusing")
    asks = [ask for ask in world.asks("train") if not world.held_out(*ask[:2])]
    declined, answered = (
        _endless([full for full in map(world.asked, asks) if full.declined is kind], draw)
        for kind in (True, False)
    )
    while True:
        said = [(full.question.prompt, full.refusal) for full in islice(declined, half)]
        said += [(full.question.prompt, full.question.answer) for full in islice(answered, half)]
        yield rendered(backbone, said)


def _endless(pool: list[Asked], draw: Random) -> Iterator[Asked]:
    """The pool in one order after another."""
    while True:
        yield from draw.sample(pool, len(pool))
