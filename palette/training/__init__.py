"""Training a small LoRA on a frozen backbone: examples, losses, and one resumable loop."""

from palette.training.examples import Example, Reference, references
from palette.training.loop import Plan, train
from palette.training.lora import lora_layers, lora_parameters, read_out, trainable
from palette.training.losses import LossWeights, batch_loss

__all__ = [
    "Example",
    "LossWeights",
    "Plan",
    "Reference",
    "batch_loss",
    "lora_layers",
    "lora_parameters",
    "read_out",
    "references",
    "train",
    "trainable",
]
