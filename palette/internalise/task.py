"""What every internalisation method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

from palette.activations import RankOneEdit
from palette.adapters.lora import Adapter
from palette.backbones import Backbone
from palette.directions import Directions, Intervention, StrengthKernel
from palette.internalise.examples import Example
from palette.internalise.loop import Checkpoint
from palette.internalise.losses import LossWeights
from palette.processes import ALONE, ProcessGroup
from palette.settings import Settings

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


@dataclass(frozen=True)
class Task:
    """One adapter to be made: of which backbone, from which examples, with which intervention."""

    backbone: Backbone
    directions: Directions
    intervention: Intervention
    """The member of the search's front that was chosen."""
    examples: Sequence[Example]
    pools: Mapping[str, Sequence[int]]
    """The examples of each pool, in the order of ``BatchShares``."""
    settings: TrainingSettings
    checkpoint: Checkpoint
    seed: int = 0
    advance: Callable[[int], None] = lambda count: None
    held: Sequence[int] = ()
    """The examples of the validation split, which decide when training ends; never trained on."""
    processes: ProcessGroup = ALONE
    beside: Sequence[Adapter] = ()
    """Adapters of other domains, random subsets of which are mounted while this one is trained."""

    @property
    def edit(self) -> RankOneEdit:
        """What target prompts' streams are to become at the intervention's peak: centred, and flipped.

        The place and the direction are the search's; the strength is ``amplification``, beyond 1, for
        a student that has to be told apart reaches a part of its target only (arXiv 2605.24154 uses
        2.5, uncentred).
        """
        chosen = self.intervention
        kernel = StrengthKernel(chosen.kernel.peak, 0, self.settings.amplification)
        centred = replace(chosen, method="centred_ablation", kernel=kernel)
        return centred.edits(self.directions)["stream", kernel.peak]


@dataclass(frozen=True)
class Learned:
    """What a method gives: an adapter without a card, and what is to be known of it."""

    adapter: Adapter
    record: Mapping[str, Any] = field(default_factory=dict)


__all__ = ["BatchShares", "Learned", "Method", "Task", "TrainingSettings"]
