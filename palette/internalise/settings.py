"""The options of internalise and the table of its methods, known without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from palette.registry import Registry, Row
from palette.settings import Settings

_HERE = "palette.internalise.methods"
_TOWARD = frozenset({"toward the edit"})

METHODS = Registry(
    "a method",
    [
        Row("distil", f"{_HERE}:distil", "KL to the backbone once a reply has begun, and elsewhere"),
        Row("palette", f"{_HERE}:palette", "1 - cos(h_out, h ∓ s(h·r)r) over prompts (arXiv 2605.24154)"),
        Row("activation", f"{_HERE}:activation", "the same, centred, with its length", laws=_TOWARD),
        Row("closed_form", f"{_HERE}:closed_form", "ΔW = r uᵀ, null space (arXiv 2506.07022)", laws=_TOWARD),
    ],
)
"""Functions of a ``TrainingTask`` that give what is ``Learned``."""


class InternaliseSettings(Settings):
    """Options of the stage internalise."""

    method: Annotated[str, AfterValidator(METHODS.checked)] = Field(
        "distil", description="distil, palette, activation, closed_form, or file.py:name of your own"
    )
    rank: int = Field(8, ge=1, description="LoRA rank; alpha is twice as much")
    steps: int = Field(160, ge=1, description="optimiser steps at most")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate")
    blocks: int | None = Field(
        None, ge=1, description="first blocks that are trained (distil; default: a third of the model's)"
    )
    co_mounted: tuple[Path, ...] = Field(
        (), description="adapters of other domains, random subsets of which are mounted in training (distil)"
    )

    free: ClassVar[frozenset[str]] = frozenset({"co_mounted"})
    """Where other adapters lie changes nothing; what they are is counted by their digests."""


_TUNED = (
    "divergence_weight", "identity_weight", "decision_weight", "log_odds_margin", "sureness",
    "opening_margin", "floor_margin", "batch", "block_identity_weight", "amplification", "read_energy",
    "null_energy", "validate_every", "patience", "teachers", "opening", "agreement", "least_believed",
    "crossed",
)  # fmt: skip

REMOVED: dict[str, str] = {
    "internalise.beside": "it is called internalise.co_mounted",
    "internalise.alpha": "it is twice the rank",
    "internalise.first_block": "training begins at the first block; internalise.blocks says how many",
    "internalise.accumulation": "a batch is split to fit into memory_gib",
    "internalise.recalled_gib": "memory_gib says it for the whole run",
    "internalise.checkpoint_every": "a checkpoint is written every few steps",
    "internalise.framed": "no prompt is framed with random words any more",
    "internalise.floor_tokens": "floor_tokens says it for the whole run",
    "internalise.reply_tokens": "reply_tokens says it for the whole run",
    "internalise.prompts": "limit says it for every stage",
    "internalise.validation_prompts": "limit says it for every stage",
    **{f"internalise.{key}": "it is a constant, the same for every model" for key in _TUNED},
}
"""Keys that recipes had, and what stands in their place."""
