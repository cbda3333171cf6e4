"""The options of internalise and the table of its methods, known without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from palette.registry import Registry, Row
from palette.settings import Settings

_HERE, _TOWARD = "palette.internalise.methods", frozenset({"toward the edit"})
_REPLIES = frozenset({"replies"})
METHODS = Registry(
    "a method",
    [
        Row(
            "distil", f"{_HERE}:distil", "the teachers' replies; elsewhere KL to the backbone", laws=_REPLIES
        ),
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
    steps: int = Field(200, ge=1, description="optimiser steps at most, of a student")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate")
    blocks: int | None = Field(None, ge=1, description="first blocks that are trained (distil; default: all)")
    co_mounted: tuple[Path, ...] = Field(
        (), description="adapters of other domains, random subsets of which are mounted in training (distil)"
    )

    free: ClassVar[frozenset[str]] = frozenset({"co_mounted"})
    """Where other adapters lie changes nothing; what they are is counted by their digests."""


_GONE = {
    "it is a constant, the same for every model": "divergence_weight identity_weight decision_weight "
    "log_odds_margin sureness opening_margin floor_margin batch block_identity_weight amplification "
    "read_energy null_energy validate_every patience teachers opening agreement least_believed crossed",
    "it is called internalise.co_mounted": "beside",
    "it is twice the rank": "alpha",
    "training begins at the first block; internalise.blocks says how many": "first_block",
    "a batch is split to fit into memory_gib": "accumulation",
    "memory_gib says it for the whole run": "recalled_gib",
    "a checkpoint is written every few steps": "checkpoint_every",
    "no prompt is framed with random words any more": "framed",
    "floor_tokens says it for the whole run": "floor_tokens",
    "reply_tokens says it for the whole run": "reply_tokens",
    "limit says it for every stage": "prompts validation_prompts",
}
REMOVED = {f"internalise.{key}": sentence for sentence, keys in _GONE.items() for key in keys.split()}
"""Keys that recipes had, and what stands in their place."""
