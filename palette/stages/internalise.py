"""Internalise: a LoRA with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from palette.adapters.files import write_adapter
from palette.adapters.lora import Adapter
from palette.artefacts import write_json
from palette.authorisation import Role
from palette.backbones import batches, greedy_replies
from palette.evaluation.judge import RuleJudge
from palette.fingerprints import fingerprint
from palette.settings import Settings
from palette.stages.assignment import Assignment
from palette.stages.collect import Collected, read_collected
from palette.stages.search import Member, read_front
from palette.training import (
    Example,
    LossWeights,
    Plan,
    batch_loss,
    lora_layers,
    lora_parameters,
    read_out,
    references,
    train,
    trainable,
)
from palette.training.teachers import (
    Lesson,
    Reply,
    common_opening,
    complete,
    intervened_replies,
    lessons,
)

CHECKPOINT = Path("internalise") / "checkpoint.safetensors"
RECORD = Path("internalise") / "training.json"


class InternaliseSettings(Settings):
    """Options of the stage internalise."""

    teachers: int = Field(6, ge=1, description="front members that teach, of distinct sites")
    opening: int = Field(4, ge=1, description="tokens a teacher says under its intervention")
    reply_tokens: int = Field(48, ge=4, description="tokens of a taught or kept reply at most")
    agreement: int = Field(2, ge=1, description="teachers that must give the same reply")
    blocks: int = Field(2, ge=1, description="blocks trained, ending at the chosen site")
    rank: int = Field(8, ge=1, description="LoRA rank")
    alpha: float = Field(16.0, gt=0, description="LoRA alpha")
    steps: int = Field(200, ge=1, description="optimiser steps")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate")
    batch: tuple[int, int, int, int] = Field(
        (24, 20, 16, 20), description="examples a step: target, preserve, floor, benign"
    )
    divergence_weight: float = Field(1.0, ge=0, description="weight of the KL to the backbone")
    identity_weight: float = Field(20.0, ge=0, description="weight of the activation identity")
    checkpoint_every: int = Field(25, ge=1, description="steps between two checkpoints")
    prompts: int = Field(240, ge=1, description="train prompts at most, a domain, kind and tier")


@dataclass(frozen=True)
class Lectures:
    """What the student is given: examples, and which of them belong to which role."""

    examples: list[Example]
    pools: list[list[int]]
    record: dict[str, Any]


def internalise(assignment: Assignment, settings: InternaliseSettings) -> Adapter:
    """Trains the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Raises:
        PromptError: if the train split lacks a role.
    """
    collected, front = read_collected(assignment.folder), read_front(assignment.folder)
    lectures = prepare(assignment, settings, collected, front)
    backbone, examples = assignment.backbone, lectures.examples
    blocks = edited_blocks(front[0].intervention.kernel.peak, settings.blocks)
    sites = [block + 1 for block in blocks]
    known = references(backbone, examples, sites)
    weights = LossWeights(settings.divergence_weight, settings.identity_weight)
    layers = lora_layers(backbone, blocks)
    plan = Plan(
        settings.steps,
        settings.learning_rate,
        lectures.pools,
        settings.batch,
        seed=assignment.seed,
        every=settings.checkpoint_every,
    )
    # How often a checkpoint is written changes no byte of the result.
    chosen = settings.model_dump(mode="json", exclude={"checkpoint_every"})
    identity = fingerprint([chosen, blocks, plan.seed, [[e.ids, e.taught] for e in examples]])

    def loss(rows: list[int]) -> Any:
        chosen = [examples[row] for row in rows]
        (batch,) = batches(
            [e.ids for e in chosen], backbone.pad, backbone.model.device, tokens=1 << 40
        )
        return batch_loss(backbone, batch, chosen, [known[row] for row in rows], sites, weights)

    with (
        trainable(
            backbone, layers, rank=settings.rank, alpha=settings.alpha, seed=assignment.seed
        ) as model,
        assignment.progress("internalise", settings.steps) as advance,
    ):
        last = train(
            lora_parameters(model),
            loss,
            plan,
            assignment.folder / CHECKPOINT,
            identity,
            lambda count, value: advance(count),
        )
        trained = read_out(model, backbone, layers)
    adapter = Adapter(trained.modules, trained.backbone, _card(assignment))
    write_adapter(assignment.folder, adapter)
    write_json(assignment.folder / RECORD, {**lectures.record, "blocks": blocks, "last_loss": last})
    return adapter


def edited_blocks(peak: int, count: int) -> list[int]:
    """The blocks that are trained: those whose outputs lead up to the chosen site."""
    return list(range(max(0, peak - count), peak))


def prepare(
    assignment: Assignment,
    settings: InternaliseSettings,
    collected: Collected,
    front: Sequence[Member],
) -> Lectures:
    """The student's examples, made from the backbone alone.

    Raises:
        PromptError: if the train split lacks a role.
    """
    backbone = assignment.backbone
    chosen = {
        role: assignment.select("train", role).capped(settings.prompts)
        for role in (Role.TARGET, Role.PRESERVE, Role.FLOOR, Role.BENIGN)
    }
    rendered = {role: assignment.render(prompts) for role, prompts in chosen.items()}
    end = backbone.stops[0]
    examples: list[Example] = []
    pools: list[list[int]] = []
    kept: dict[Role, list[list[int]]] = {}
    with assignment.progress("replies", sum(map(len, rendered.values()))) as advance:
        for role in (Role.PRESERVE, Role.FLOOR, Role.BENIGN):
            kept[role] = greedy_replies(backbone, rendered[role], settings.reply_tokens, advance)
        answered = kept[Role.BENIGN]
        found = _lessons(assignment, settings, collected, front, (rendered[Role.TARGET], answered))
        advance(len(rendered[Role.TARGET]))
    believed = [
        Example(tuple(prompt), (*lesson[0].reply, end), taught=True)
        for prompt, lesson in zip(rendered[Role.TARGET], found, strict=True)
        if lesson and lesson[0].votes >= settings.agreement
    ]
    examples += believed
    pools.append(list(range(len(believed))))
    for role, replies in kept.items():
        start = len(examples)
        examples += [
            Example(tuple(prompt), (*reply, end), taught=False)
            for prompt, reply in zip(rendered[role], replies, strict=True)
        ]
        pools.append(list(range(start, len(examples))))
    record = {
        "target_prompts": len(found),
        "believed": len(believed),
        "examples": {role: len(pool) for role, pool in zip(Role, pools, strict=True)},
    }
    return Lectures(examples, pools, record)


def _lessons(
    assignment: Assignment,
    settings: InternaliseSettings,
    collected: Collected,
    front: Sequence[Member],
    texts: tuple[list[list[int]], list[list[int]]],
) -> list[list[Lesson]]:
    """The believable replies to the target prompts, from the front's members and the own opening."""
    prompts, answered = texts
    backbone = assignment.backbone
    judge = RuleJudge(openings=collected.judge_openings)

    def refused(replies: Sequence[Reply]) -> list[bool]:
        texts = [backbone.decode(list(reply)) for reply in replies]
        return [v.label.refused or v.label.broken for v in judge.verdicts([""] * len(texts), texts)]

    distinct: dict[tuple[int, str], Member] = {}
    for member in front:
        key = (member.intervention.kernel.peak, member.intervention.method)
        distinct.setdefault(key, member)
    own = common_opening(answered)
    teachers = [complete(backbone, prompts, [own] * len(prompts), len(own), settings.reply_tokens)]
    for member in list(distinct.values())[: settings.teachers]:
        teachers.append(
            intervened_replies(
                backbone,
                collected.directions,
                member.intervention,
                prompts,
                settings.opening,
                settings.reply_tokens,
            )
        )
    return lessons(backbone, prompts, teachers, refused)


def _card(assignment: Assignment) -> dict[str, Any]:
    return {
        "domains": list(assignment.authorisation.domains),
        "floor": assignment.authorisation.floor.digest,
        "seed": assignment.seed,
    }
