"""Making an adapter on a frozen backbone: lectures, methods, losses, and one resumable loop."""

from palette.training.crew import ALONE, Crew, join_crew
from palette.training.examples import Example, Reference, recalling, references
from palette.training.loop import Checkpoint, Plan, Stopping, train
from palette.training.losses import LossWeights, OutputLoss
from palette.training.methods import METHODS
from palette.training.task import BatchShares, Learned, Task, TrainingSettings

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
