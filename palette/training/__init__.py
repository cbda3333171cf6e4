"""Making an adapter on a frozen backbone: lectures, methods, losses, and one resumable loop."""

from palette.training.examples import Example, Reference, references
from palette.training.loop import Plan, train
from palette.training.losses import LossWeights, batch_loss
from palette.training.methods import METHODS
from palette.training.task import BatchShares, Learned, Task, TrainingSettings

__all__ = [
    "METHODS",
    "BatchShares",
    "Example",
    "Learned",
    "LossWeights",
    "Plan",
    "Reference",
    "Task",
    "TrainingSettings",
    "batch_loss",
    "references",
    "train",
]
