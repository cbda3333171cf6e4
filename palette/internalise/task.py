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
from palette.internalise.settings import TrainingSettings
from palette.processes import ALONE, ProcessGroup


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
    co_mounted: Sequence[Adapter] = ()
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
