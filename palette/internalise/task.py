"""What every internalisation method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from palette.activations import RankOneEdit
from palette.adapters.lora import Adapter
from palette.backbones import Backbone
from palette.directions import Directions, Intervention, StrengthKernel
from palette.internalise.examples import Example
from palette.internalise.loop import Checkpoint
from palette.internalise.settings import InternaliseSettings
from palette.processes import ALONE, ProcessGroup

SHARES: Mapping[str, int] = {
    "target": 14,
    "near_floor": 14,
    "floor": 8,
    "preserve": 32,
    "near_benign": 6,
    "benign": 8,
}
"""How many examples of each pool a step takes.

What is near the target (the floor and the benign prompts of the authorised domains) is drawn more
often than its number would have it: an adapter confuses it with the target first. Target prompts
need few: more of them, instead of other domains', were measured to open less and to keep less.
"""

AMPLIFICATION = 2.5
"""Strength of the steering that is taught, beyond 1: a student that has to tell prompts apart reaches a
part of its target only (arXiv 2605.24154 uses the same, uncentred)."""


@dataclass(frozen=True)
class TrainingTask:
    """One adapter to be made: of which backbone, from which examples, with which intervention."""

    backbone: Backbone
    directions: Directions
    intervention: Intervention
    """The member of the search's front that was chosen."""
    examples: Sequence[Example]
    pools: Mapping[str, Sequence[int]]
    """The examples of each pool, in the order of ``SHARES``."""
    settings: InternaliseSettings
    checkpoint: Checkpoint
    seed: int = 0
    advance: Callable[[int], None] = lambda count: None
    held_out: Sequence[int] = ()
    """The examples of the validation split, which decide when training ends; never trained on."""
    processes: ProcessGroup = ALONE
    co_mounted: Sequence[Adapter] = ()
    """Adapters of other domains, random subsets of which are mounted while this one is trained."""
    memory_gib: float = 4.0
    """For the backbone's own outputs, and for what a pass keeps for its gradient."""

    @property
    def edit(self) -> RankOneEdit:
        """What target prompts' streams are to become at the intervention's peak: centred, and flipped.

        The place and the direction are the search's; the strength is ``AMPLIFICATION``.
        """
        chosen = self.intervention
        kernel = StrengthKernel(chosen.kernel.peak, 0, AMPLIFICATION)
        centred = replace(chosen, method="centred_ablation", kernel=kernel)
        return centred.edits(self.directions)["stream", kernel.peak]


@dataclass(frozen=True)
class Learned:
    """What a method gives: an adapter without a card, and what is to be known of it."""

    adapter: Adapter
    record: Mapping[str, Any] = field(default_factory=dict)
