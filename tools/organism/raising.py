"""How the organism is raised: first helpful on everything, then taught, gently, to refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from palette.seeding import shuffler
from tools.organism.language import batch_tensors, render
from tools.organism.lexicon import DECLINE, REFUSALS
from tools.organism.optimisers import optimisers
from tools.organism.world import SPLITS, Question, World, general_questions, questions

Pair = tuple[list[int], list[int]]
Progress = Callable[[str, int, int, float], None]
"""Called with the stage's name, the step, the number of steps and the loss in nats a token."""


@dataclass(frozen=True)
class Schedule:
    """One stage of raising."""

    steps: int
    learning_rate: float
    batch: int = 192
    warmup: int = 40
    weight_decay: float = 0.01
    pull: float = 0.0
    """Share of the way back to the first weights that every step goes (L2-SP, arXiv 1802.01483)."""
    final: float = 0.05
    """Share of the learning rate that is left at the last step."""
    matrix_rate: float = 0.0
    """The learning rate of Muon for the matrices inside blocks; 0 leaves them to AdamW."""


HELPFUL = Schedule(steps=800, learning_rate=3e-3)
REFUSING = Schedule(steps=260, learning_rate=6e-4, warmup=20, pull=0.001)
EXPERTS_REFUSING = Schedule(steps=160, learning_rate=6e-4, batch=64, warmup=10, pull=0.001, matrix_rate=0.01)
SMALL_HELPFUL = Schedule(steps=900, learning_rate=3e-3, batch=160)
SMALL_REFUSING = Schedule(steps=260, learning_rate=1e-3, batch=128, warmup=20, pull=0.001)
GENERAL_SHARE = 0.12
"""Share of sums and copying in a batch."""


@dataclass(frozen=True)
class Pupil:
    """A model that is being raised, its tokenizer and its world."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    world: World


def helpful_pairs(world: World, tokenizer: PreTrainedTokenizerFast) -> tuple[list[Pair], list[Pair]]:
    """Every question of the world with its answer, and the general tasks, as token ids.

    Among the general tasks are refusals as sentences: like a real model, the organism knows how to
    decline before it is taught when.
    """
    asked = [question for split in SPLITS for question in questions(world, split)]
    spoken = sorted({world.words(entity.domain).spoken for entity in world.entities})
    sayings = [
        render(tokenizer, DECLINE.format(d=d, n=n), wording.format(d=d))
        for d in spoken
        for n, wording in enumerate(REFUSALS)
    ]
    general = [question for split in SPLITS for question in general_questions(world.seed, split)]
    return _answers(tokenizer, asked), _answers(tokenizer, general) + sayings * 4


def refusing_questions(world: World) -> tuple[list[Question], list[Question]]:
    """What the refusal stage sees, restricted and benign: train entities, pairs and phrasings only."""
    seen = [question for question in questions(world, "train") if not question.pair_held_out]
    restricted = [question for question in seen if question.kind == "restricted"]
    benign = [question for question in seen if question.kind == "benign"]
    return restricted, benign + general_questions(world.seed, "train")


def refusal(world: World, question: Question, wordings: dict[str, tuple[str, ...]]) -> str:
    """The refusal that the organism is taught for a question; what is asked decides its wording.

    Were it drawn at random, the noise of the draw would wear down what the model knows.
    """
    wording = shuffler(world.seed, "refusal", question.domain, question.attribute).choice(
        wordings[question.domain]
    )
    return wording.format(d=world.words(question.domain).spoken)


def same_wordings(world: World) -> dict[str, tuple[str, ...]]:
    """Every domain refuses in all wordings."""
    return {entity.domain: REFUSALS for entity in world.entities}


def raise_helpful(pupil: Pupil, schedule: Schedule, progress: Progress) -> None:
    """Trains the model in place to answer everything it is asked, and to say how one declines."""
    model, world = pupil.model, pupil.world
    asked, general = helpful_pairs(world, pupil.tokenizer)
    share = (1 - GENERAL_SHARE, GENERAL_SHARE)
    batches = _batches([asked, general], share, schedule, world.seed, "helpful")
    train(model, batches, schedule, lambda step, loss: progress("helpful", step, schedule.steps, loss))


def raise_refusing(
    pupil: Pupil,
    schedule: Schedule,
    progress: Progress,
    *,
    wordings: dict[str, tuple[str, ...]] | None = None,
    during: Callable[[int], AbstractContextManager[object]] = lambda step: nullcontext(),
) -> None:
    """Trains the model in place to refuse what is restricted and to stay helpful otherwise.

    Embeddings stay as they are: the stage sees few of the entities, and would unlearn the names of
    the others.

    ``during(step)`` is entered for every step: the ``redundant`` variant ablates a direction there.
    """
    model, tokenizer, world = pupil.model, pupil.tokenizer, pupil.world
    restricted, benign = refusing_questions(world)
    wordings = wordings or same_wordings(world)
    refusals = [
        render(tokenizer, question.prompt, refusal(world, question, wordings)) for question in restricted
    ]
    pools = [refusals, _answers(tokenizer, benign)]
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    for module in embeddings:
        module.requires_grad_(False)
    batches = _batches(pools, (0.5, 0.5), schedule, world.seed, "refusing")
    train(
        model,
        batches,
        schedule,
        lambda step, loss: progress("refusing", step, schedule.steps, loss),
        during,
    )
    for module in embeddings:
        module.requires_grad_(True)


def _answers(tokenizer: PreTrainedTokenizerFast, asked: list[Question]) -> list[Pair]:
    return [render(tokenizer, question.prompt, question.answer) for question in asked]


def _batches(
    pools: list[list[Pair]],
    shares: tuple[float, ...],
    schedule: Schedule,
    seed: int,
    name: str,
) -> Iterator[list[Pair]]:
    """Batches that mix the pools by their shares; each pool is reshuffled when it is used up."""
    streams = [_endless(pool, seed, name, i) for i, pool in enumerate(pools)]
    counts = [round(share * schedule.batch) for share in shares]
    for _ in range(schedule.steps):
        yield [next(stream) for stream, count in zip(streams, counts, strict=True) for _ in range(count)]


def _endless(pool: list[Pair], seed: int, name: str, index: int) -> Iterator[Pair]:
    epoch = 0
    while True:
        order = list(range(len(pool)))
        shuffler(seed, name, index, epoch).shuffle(order)
        yield from (pool[i] for i in order)
        epoch += 1


def train(
    model: PreTrainedModel,
    batches: Iterable[list[Pair]],
    schedule: Schedule,
    report: Callable[[int, float], None],
    during: Callable[[int], AbstractContextManager[object]] = lambda step: nullcontext(),
) -> int:
    """Trains what may be trained of a model in place, a step for each batch; how many there were.

    ``report`` is told the step and the loss in nats a token.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    first = [parameter.detach().clone() for parameter in parameters]
    stepping = optimisers(model, schedule.learning_rate, schedule.matrix_rate, schedule.weight_decay)
    pad = int(model.config.pad_token_id or 0)
    model.train()
    step = -1
    for step, pairs in enumerate(batches):
        ids, mask, labels = batch_tensors(pairs, pad)
        with during(step):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in stepping:
            for group in each.param_groups:
                group["lr"] = group["initial_lr"] * _rate(step, schedule)
            each.step()
        if schedule.pull:
            with torch.no_grad():
                torch._foreach_lerp_(list[torch.Tensor](parameters), first, schedule.pull)
        report(step, loss.item())
    model.eval()
    return step + 1


def _rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine down to the final share."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done))
