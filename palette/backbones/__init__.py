"""Backbones: loading a chat model, rendering prompts for it, and generating replies with it."""

from palette.backbones.backbone import Backbone, Thinking
from palette.backbones.generation import continuations, greedy_replies
from palette.backbones.loading import load_backbone, locate
from palette.backbones.scoring import Batch, batches, next_token_logits, reply_logits

__all__ = [
    "Backbone",
    "Batch",
    "Thinking",
    "batches",
    "continuations",
    "greedy_replies",
    "load_backbone",
    "locate",
    "next_token_logits",
    "reply_logits",
]
