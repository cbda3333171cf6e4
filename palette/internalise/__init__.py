"""Making an adapter on a frozen backbone: lectures, methods, losses, and one resumable loop."""

from palette.processes import ALONE, Crew, join_crew
from palette.internalise.examples import Example, Reference, recalling, references
from palette.internalise.loop import Checkpoint, Plan, Stopping, train
from palette.internalise.losses import LossWeights, OutputLoss
from palette.internalise.methods import METHODS
from palette.internalise.task import BatchShares, Learned, Task, TrainingSettings

__all__ = [
    "ALONE",
    "METHODS",
    "BatchShares",
    "Checkpoint",
    "Crew",
    "Example",
    "Learned",
    "LossWeights",
    "OutputLoss",
    "Plan",
    "Reference",
    "Stopping",
    "Task",
    "TrainingSettings",
    "join_crew",
    "recalling",
    "references",
    "train",
]
