"""The commands of control tokens as functions: ``palette.tokens.train("recipe.yaml")``."""

from palette.pipeline import add_category as add
from palette.pipeline import train_tokens as train
from palette.stages.tokens import evaluate_tokens as evaluate
from palette.stages.tokens import export_subset as export
from palette.stages.tokens import inspect_tokens as inspect

__all__ = ["add", "evaluate", "export", "inspect", "train"]
