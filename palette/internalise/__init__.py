"""Making an adapter on a frozen backbone: training examples, methods, losses, and one resumable loop."""

from palette.internalise.examples import Example, Reference, recalling, references
from palette.internalise.loop import Checkpoint, Plan, Stopping, train
from palette.internalise.losses import LossWeights, OutputLoss
from palette.internalise.methods import METHODS
from palette.internalise.task import BatchShares, Learned, Task, TrainingSettings
from palette.processes import ALONE, ProcessGroup, join_process_group

__all__ = [
    "ALONE",
    "METHODS",
    "BatchShares",
    "Checkpoint",
    "Example",
    "Learned",
    "LossWeights",
    "OutputLoss",
    "Plan",
    "ProcessGroup",
    "Reference",
    "Stopping",
    "Task",
    "TrainingSettings",
    "join_process_group",
    "recalling",
    "references",
    "train",
]
