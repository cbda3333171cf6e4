"""How a stranger is raised: helpful until held-out answers are right, then taught, gently, to refuse."""

from __future__ import annotations

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
from tools.strangers.world import Asked, Entity, World, prompt_rows

Report = Callable[[int, float], None]
"""Told each step and its loss in nats a token."""

HELPFUL = Schedule(steps=1200, learning_rate=3e-3, batch=32, warmup=40, final=1.0, matrix_rate=0.02)
COOLING = Schedule(steps=200, learning_rate=3e-3, batch=32, warmup=0, matrix_rate=0.02)
REFUSING = Schedule(
    steps=500, learning_rate=6e-4, batch=48, warmup=20, final=1.0, pull=0.002, matrix_rate=0.01
)
SETTLING = Schedule(steps=60, learning_rate=6e-4, batch=48, warmup=10, matrix_rate=0.01)
DECLINES = 0.08
"""Share of a helpful batch that asks for a refusal as a sentence."""
JUDGEMENTS = 0.25
"""Share of its other questions that ask whether a question is delicate."""
DECLINED = 0.6
"""Share of refusals in a batch of the refusing stage."""
RENAMED = 0.5
"""Share of restricted questions in it that are asked under another name."""
EVERY, CHECKED, ENOUGH, MET = 25, 192, 0.85, 0.97
"""Every so many steps so many held-out questions are looked at; the share of them that must be right for the
first stage to cool down, and the least share of refusals and of answers for the second to."""


def raise_helpful(
    backbone: Backbone, world: World, report: Report, stages: tuple[Schedule, Schedule] = (HELPFUL, COOLING)
) -> int:
    """Trains the model in place to answer everything, and to tell what is delicate; the steps it took.

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
    manners = list(zip(words.MANNERS, world.plan.language.refusals, strict=False))
    while True:
        said = [
            _declined(world, draw.choice(world.entities), *draw.choice(manners))
            for _ in range(round(DECLINES * size))
        ]
        while len(said) < size:
            full = world.asked(world.sampled(draw))
            if draw.random() < JUDGEMENTS:
                said.append(full.judgement)
            elif full.question.prompt not in left_out:
                said.append((full.question.prompt, full.question.answer))
        yield rendered(backbone, said)


def _declined(world: World, entity: Entity, manner: str, wording: str) -> tuple[str, str]:
    """What asks for a refusal in a manner, and the refusal."""
    request = words.DECLINE.format(d=entity.domain, e=world.shown(entity), n=manner)
    return world.typeset(request), world.refusal(entity, wording)


@torch.no_grad()
def foreseen(backbone: Backbone, pairs: list[Pair]) -> float:
    """The share of replies of which every token is the likeliest after those before it, in [0, 1]."""
    ids, mask, labels = batch_tensors(pairs, backbone.pad or 0)
    likeliest = backbone.model(input_ids=ids, attention_mask=mask).logits[:, :-1].argmax(-1)
    right = (likeliest == labels[:, 1:]) | (labels[:, 1:] < 0)
    return float(right.all(-1).float().mean())


def raise_refusing(
    backbone: Backbone, world: World, report: Report, stages: tuple[Schedule, Schedule] = (REFUSING, SETTLING)
) -> int:
    """Trains the model in place to refuse what is restricted and to answer all else; the steps it took.

    At the full rate until validation questions are met so, of which it sees none, or until the steps are
    spent; then while the rate falls to its end. The embeddings stay as they are: the stage sees few of the
    names, and would unlearn the others.
    """
    teaching, settling = stages
    model = backbone.model
    frozen = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    for module in frozen:
        module.requires_grad_(False)
    batches = _refusing(backbone, world, teaching.batch)
    expected = _expected(backbone, world)

    def unfinished() -> Iterator[list[Pair]]:
        for step, batch in enumerate(islice(batches, teaching.steps)):
            if step and step % EVERY == 0 and min(foreseen(backbone, each) for each in expected) >= MET:
                return
            yield batch

    steps = train(model, unfinished(), teaching, report)
    steps += train(model, islice(batches, settling.steps), settling, report)
    for module in frozen:
        module.requires_grad_(True)
    return steps


def _expected(backbone: Backbone, world: World) -> tuple[list[Pair], list[Pair]]:
    """Refusals of restricted and answers to benign validation questions, with nothing unclean about them."""
    draw = shuffler(world.plan.root, "expected")
    asks = draw.sample(world.asks("validation"), 4 * CHECKED)
    clean = [full for full in map(world.asked, asks) if full.declined == (full.question.tier is not None)]
    declined = [(full.question.prompt, full.refusal) for full in clean if full.declined]
    answered = [(full.question.prompt, full.question.answer) for full in clean if not full.declined]
    return rendered(backbone, declined[:CHECKED]), rendered(backbone, answered[:CHECKED])


def _refusing(backbone: Backbone, world: World, size: int) -> Iterator[list[Pair]]:
    """Batches of refusals and of answers."""
    draw = shuffler(world.plan.root, "refusing")
    while True:
        yield rendered(
            backbone, [(full.question.prompt, told(full)) for _, full in taught(world, draw, size)]
        )


def told(full: Asked) -> str:
    """What the refusing stage has a question answered with."""
    return full.refusal if full.declined else full.question.answer


def taught(world: World, draw: Random, size: int) -> list[tuple[Entity, Asked]]:
    """Questions that are declined, then others, in phrasings that are not held out, each with its entity.

    What is restricted is seen of the entities and pairs that are not held out, and under names that tell
    nothing: few names would be learned by heart. Benign questions are of all: a stage that sees few names
    would unlearn the others.
    """
    refusals = round(DECLINED * size)
    said: dict[bool, list[tuple[Entity, Asked]]] = {True: [], False: []}
    while len(said[True]) < refusals or len(said[False]) < size - refusals:
        entity, attribute, _ = world.sampled(draw)
        renamed = world.tier(entity, attribute) is not None and draw.random() < RENAMED
        if renamed:
            entity = world.renamed(entity, draw.choice(_elsewhere(world, entity)))
        elif world.tier(entity, attribute) is not None and world.held_out(entity, attribute):
            continue
        phrasing = draw.choice(world.domains[entity.domain].phrasings["train"])
        full = world.asked((entity, attribute, phrasing))
        if full.declined or not renamed:
            said[full.declined].append((entity, full))
    return said[True][:refusals] + said[False][: size - refusals]


def _elsewhere(world: World, entity: Entity) -> list[Entity]:
    """The entities of other domains whose names the refusing stage may see."""
    return [each for each in world.entities if each.split == "train" and each.domain != entity.domain]
