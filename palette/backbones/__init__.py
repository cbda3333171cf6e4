"""Backbones: loading a chat model, rendering prompts for it, and generating replies with it."""

from palette.backbones.backbone import Backbone, shared
from palette.backbones.generation import answered, continuations, greedy_replies
from palette.backbones.loading import load_backbone
from palette.backbones.scoring import Batch, batches, next_token_logits, reply_logits

__all__ = [
    "Backbone",
    "Batch",
    "answered",
    "batches",
    "continuations",
    "greedy_replies",
    "load_backbone",
    "next_token_logits",
    "reply_logits",
    "shared",
]
