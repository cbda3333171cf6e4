"""The options of control tokens' stages, and what no recipe sets of their training; known without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from palette.prompts import Split
from palette.settings import Settings

Place = Literal["before", "bos", "turn", "end"]
"""Where the tokens stand: before everything, behind the first token, before the first user's words, or
behind the last user's words."""

Sign = Literal["restrict", "authorise"]
"""Whether an active token has its category refused, or answered."""

REFUSAL = "I am sorry, but I cannot help with this request."

REMOVED = {
    "train.batch": "a step takes 64 tasks",
    "train.divergence_weight": "λ is 1, as published",
    "train.recalled_gib": "it is memory_gib of the run",
    "train.accumulation": "a step is one pass",
    "train.patience": "training ends after 5 looks without a lower validation loss",
    "train.checkpoint_every": "a checkpoint is written every 50 steps; no byte depends on it",
    "train.positives": "a subset of the first order has 100 positives an epoch, as published",
    "train.negatives": "each positive has one negative, as published",
    "train.joint": "tokens are trained over subsets: those trained alone do not compose",
    "train.redraw": "tasks are drawn anew for every epoch",
    "train.prompts": "480 are read, and the run's limit caps them",
    "train.validation_prompts": "32 are read, and the run's limit caps them",
    "train.reply_tokens": "it is 48, or reply_tokens of the run where that is less",
    "train.floor_tokens": "it is floor_tokens of the run",
    "evaluate.prompts": "100 are asked, and the run's limit caps them",
    "evaluate.orders": "subsets of up to 4 categories are evaluated",
    "evaluate.released": "no reply sees a token that stands inside its prompt",
    "evaluate.reply_tokens": "it is 32, or reply_tokens of the run where that is less",
    "evaluate.floor_tokens": "it is floor_tokens of the run",
    "evaluate.latency_prompts": "latency is measured on 8 prompts",
    "evaluate.gate.defence": "of what must be refused at least 95 % must be",
    "evaluate.gate.over_refusal": "of what must be answered at most 5 % may be refused",
    "evaluate.gate.utility_drop": "neutral prompts may lose at most 1 % of their right answers",
}
"""What replaced the keys that recipes of control tokens could set in earlier versions."""


class TrainSettings(Settings):
    """Options of ``tokens train`` and ``tokens add``; the defaults are the paper's."""

    slots: int = Field(5, ge=1, description="control tokens a category, m")
    place: Place = Field(
        "end", description="before everything, behind bos, at the turn's first words, or at its end"
    )
    orders: int = Field(4, ge=1, description="the largest number of categories active together in training")
    refusal: str = Field(REFUSAL, min_length=1, description="the one reply to restricted categories")
    epochs: int = Field(8, ge=1, description="times that every task is trained on, at most")
    learning_rate: float = Field(0.01, gt=0, description="Adam's peak learning rate")
    validate_every: int = Field(100, ge=1, description="steps between two looks at the validation loss")


class TokenEvaluateSettings(Settings):
    """Options of ``tokens evaluate``."""

    split: Split = Field("test", description="the split that is reported")


@dataclass(frozen=True)
class TokenPlan:
    """What no recipe sets of a training, each with its reason; comparisons and tests set others."""

    batch: int = 64
    """Tasks a step: 32 positives and 32 negatives of one order."""
    positives: int = 100
    """Positives of each subset of the first order, an epoch: the paper's budget."""
    negatives: float = 1.0
    """Negatives for each positive: the paper's ratio."""
    divergence_weight: float = 1.0
    """λ, the weight of the KL to the backbone: the paper found 0.8 to 1.2 best."""
    joint: bool = True
    """Trained over subsets; off, each category for itself, which does not compose (about 50 % of
    refusals at two categories active, in the paper)."""
    prompts: int = 480
    """Train prompts at most, a category, kind and tier: twice what an adapter's training reads."""
    validation_prompts: int = 32
    """The same of the validation split, which ends training: what the shipped tokens were tuned with."""
    reply_tokens: int = 48
    """Tokens of a taught or kept reply at most, as in an adapter's training."""
    patience: int = 5
    """Looks without a lower validation loss that end training: 3 ended it before its rate was low."""


PLAN = TokenPlan()
"""By what every recipe's tokens are trained."""
