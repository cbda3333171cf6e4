"""The options of internalise, known without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from palette.judging.refusal_prefixes import FloorReplies
from palette.settings import Settings


class LossWeights(Settings):
    """How much each term counts beside the cross-entropy of the taught replies."""

    divergence_weight: float = Field(10.0, ge=0, description="weight of the KL to the backbone (distil)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the activation identity (distil)")
    decision_weight: float = Field(0.7, ge=0, description="weight of the log-odds of first words (distil)")
    log_odds_margin: float = Field(
        0.2, ge=0, description="nats by which kept first words are to be surer (distil)"
    )
    opening_margin: float = Field(
        5.0, ge=0, description="log-odds in nats that a taught first word is to have at least (distil)"
    )
    floor_margin: float = Field(
        3.5,
        ge=0,
        description="nats by which first words on the domains' own floor are to be surer (distil)",
    )


Method = Literal["distil", "palette", "activation", "closed_form"]


class BatchShares(Settings):
    """How many examples of each pool a step takes.

    What is near the target is drawn more often than its number would have it: the floor and the
    benign prompts of the authorised domains are what an adapter confuses with it first. Target prompts
    need few: more of them, instead of other domains', were measured to open less and to keep less.
    """

    target: int = Field(14, ge=1, description="prompts to be answered")
    near_floor: int = Field(14, ge=0, description="floor prompts of the authorised domains")
    floor: int = Field(8, ge=0, description="all other floor prompts")
    preserve: int = Field(32, ge=0, description="restricted prompts of other domains")
    near_benign: int = Field(6, ge=0, description="benign prompts of the authorised domains")
    benign: int = Field(8, ge=0, description="all other benign prompts")


class TrainingSettings(LossWeights):
    """How an adapter is made of the training examples."""

    method: Method = Field("distil", description="distil, palette, activation or closed_form")
    first_block: int = Field(0, ge=0, description="the first block trained (distil)")
    blocks: int | None = Field(
        None, ge=1, description="blocks trained (distil; default: a third of the model's)"
    )
    rank: int = Field(8, ge=1, description="LoRA rank")
    alpha: int = Field(16, gt=0, description="LoRA alpha")
    steps: int = Field(160, ge=1, description="optimiser steps")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate")
    batch: BatchShares = Field(BatchShares(), description="examples of each pool a step")
    block_identity_weight: float = Field(
        3.0, ge=0, description="weight of the activation identity of the one block (activation)"
    )
    amplification: float = Field(
        2.5, ge=0, description="strength s of the steering that is taught (palette, activation, closed_form)"
    )
    read_energy: float = Field(
        0.1, gt=0, le=1, description="energy of kept inputs that may be read; 1: all that is there (distil)"
    )
    null_energy: float = Field(
        0.01, gt=0, le=1, description="energy of kept inputs that may be written on (closed_form)"
    )
    accumulation: int = Field(1, ge=1, description="passes a batch is split into, for less memory")
    recalled_gib: float = Field(
        4.0, ge=0, description="memory for the backbone's own outputs, in GiB; beyond, made at each step"
    )
    validate_every: int = Field(40, ge=1, description="steps between two looks at the validation loss")
    patience: int = Field(2, ge=1, description="looks without a lower validation loss that end training")
    checkpoint_every: int = Field(25, ge=1, description="steps between two checkpoints")


class ExampleSettings(FloorReplies):
    """Which replies are taught, and which prompts are kept as they are."""

    teachers: int = Field(6, ge=1, description="front members that teach, of distinct sites")
    opening: int = Field(4, ge=1, description="tokens a teacher says under its intervention")
    reply_tokens: int = Field(48, ge=4, description="tokens of a taught or kept reply at most")
    agreement: int = Field(2, ge=1, description="teachers that must give the same reply")
    least_believed: float = Field(
        0.25, ge=0, le=1, description="share of target prompts taught all the same, the likeliest replies"
    )
    prompts: int = Field(240, ge=1, description="train prompts at most, a domain, kind and tier")
    crossed: float = Field(
        1.0, ge=0, description="prompts crossed of two, for each one read that is not near the target"
    )
    framed: float = Field(0.0, ge=0, description="prompts framed with random words, for each one read")
    validation_prompts: int = Field(
        8, ge=1, description="validation prompts at most, a domain, kind and tier: they end training"
    )


class InternaliseSettings(ExampleSettings, TrainingSettings):
    """Options of the stage internalise."""

    co_mounted: tuple[Path, ...] = Field(
        (), description="adapters of other domains, random subsets of which are mounted in training (distil)"
    )
