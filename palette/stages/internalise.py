"""Internalise: a LoRA with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from palette.adapters.files import write_adapter
from palette.adapters.lora import Adapter
from palette.artefacts import write_json
from palette.backbones import batches
from palette.fingerprints import fingerprint
from palette.stages.assignment import Assignment
from palette.stages.collect import read_collected
from palette.stages.lectures import BatchShares, LectureSettings, prepare
from palette.stages.search import read_front
from palette.training import (
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

CHECKPOINT = Path("internalise") / "checkpoint.safetensors"
RECORD = Path("internalise") / "training.json"


class InternaliseSettings(LectureSettings):
    """Options of the stage internalise."""

    first_block: int = Field(0, ge=0, description="the first block trained")
    blocks: int | None = Field(None, ge=1, description="blocks trained (default: a third of the model's)")
    rank: int = Field(8, ge=1, description="LoRA rank")
    alpha: int = Field(16, gt=0, description="LoRA alpha")
    steps: int = Field(160, ge=1, description="optimiser steps")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate")
    batch: BatchShares = Field(BatchShares(), description="examples of each pool a step")
    divergence_weight: float = Field(10.0, ge=0, description="weight of the KL to the backbone")
    identity_weight: float = Field(100.0, ge=0, description="weight of the activation identity")
    checkpoint_every: int = Field(25, ge=1, description="steps between two checkpoints")


def internalise(assignment: Assignment, settings: InternaliseSettings) -> Adapter:
    """Trains the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
    """
    collected, front = read_collected(assignment.folder), read_front(assignment.folder)
    lectures = prepare(assignment, settings, collected, front)
    backbone, examples = assignment.backbone, lectures.examples
    blocks = trained_blocks(backbone.layers, settings)
    sites = [block + 1 for block in blocks]
    known = references(backbone, examples, sites)
    weights = LossWeights(settings.divergence_weight, settings.identity_weight)
    layers = lora_layers(backbone, blocks)
    plan = Plan(
        settings.steps,
        settings.learning_rate,
        lectures.pools,
        list(vars(settings.batch).values()),
        seed=assignment.seed,
        every=settings.checkpoint_every,
    )
    # How often a checkpoint is written changes no byte of the result.
    chosen = settings.model_dump(mode="json", exclude={"checkpoint_every"})
    identity = fingerprint([chosen, blocks, plan.seed, [[e.ids, e.taught] for e in examples]])

    def loss(rows: list[int]) -> Any:
        chosen = [examples[row] for row in rows]
        (batch,) = batches([e.ids for e in chosen], backbone.pad, backbone.model.device, tokens=1 << 40)
        return batch_loss(backbone, batch, chosen, [known[row] for row in rows], sites, weights)

    with (
        trainable(backbone, layers, rank=settings.rank, alpha=settings.alpha, seed=assignment.seed) as model,
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


def trained_blocks(layers: int, settings: InternaliseSettings) -> list[int]:
    """The blocks that are trained; by default the first third.

    There a condition on the input, which domain is asked and for what, can still be told apart;
    training later blocks was measured to open other domains as well (benchmarks/LOG.md).
    """
    count = min(settings.blocks or max(1, layers // 3), layers)
    first = min(settings.first_block, layers - count)
    return list(range(first, first + count))


def _card(assignment: Assignment) -> dict[str, Any]:
    return {
        "domains": list(assignment.authorisation.domains),
        "floor": assignment.authorisation.floor.digest,
        "seed": assignment.seed,
    }
