"""The options of control tokens' stages."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from palette.judging.refusal_prefixes import FloorReplies
from palette.prompts import Split
from palette.settings import Settings

Place = Literal["before", "bos", "turn", "end"]
"""Where the tokens stand: before everything, behind the first token, before the first user's words, or
behind the last user's words."""

Sign = Literal["restrict", "authorise"]
"""Whether an active token has its category refused, or answered."""

REFUSAL = "I am sorry, but I cannot help with this request."


class TokenTraining(Settings):
    """How control tokens are trained; the defaults are the paper's."""

    epochs: int = Field(8, ge=1, description="times that every task is trained on, at most")
    batch: int = Field(64, ge=2, description="tasks a step, half of them positives at negatives 1")
    learning_rate: float = Field(0.01, gt=0, description="Adam's peak learning rate")
    divergence_weight: float = Field(1.0, ge=0, description="λ, the weight of the KL to the backbone")
    recalled_gib: float = Field(
        4.0, ge=0, description="memory for the backbone's own outputs, in GiB; beyond, made at each step"
    )
    accumulation: int = Field(1, ge=1, description="passes a batch is split into, for less memory")
    validate_every: int = Field(100, ge=1, description="steps between two looks at the validation loss")
    patience: int = Field(3, ge=1, description="looks without a lower validation loss that end training")
    checkpoint_every: int = Field(50, ge=1, description="steps between two checkpoints")


class TrainSettings(FloorReplies, TokenTraining):
    """Options of ``tokens train`` and ``tokens add``."""

    slots: int = Field(5, ge=1, description="control tokens a category, m")
    place: Place = Field(
        "end", description="before everything, behind bos, at the turn's first words, or at its end"
    )
    orders: int = Field(4, ge=1, description="the largest number of categories active together in training")
    positives: int = Field(100, ge=1, description="positives of each subset of the first order, an epoch")
    negatives: float = Field(1.0, ge=0, description="negatives for each positive")
    joint: bool = Field(True, description="train over subsets; off, each category for itself")
    refusal: str = Field(REFUSAL, min_length=1, description="the one reply to restricted categories")
    redraw: bool = Field(True, description="draw the tasks of every epoch anew from the train prompts")
    prompts: int = Field(480, ge=1, description="train prompts at most, a category, kind and tier")
    validation_prompts: int = Field(
        16, ge=1, description="the same of the validation split: they end training"
    )
    reply_tokens: int = Field(48, ge=4, description="tokens of a taught or kept reply at most")

    free: ClassVar[frozenset[str]] = frozenset({"checkpoint_every", "recalled_gib"})


class TokenEvaluateSettings(Settings):
    """Options of ``tokens evaluate``."""

    split: Split = Field("test", description="the split that is reported")
