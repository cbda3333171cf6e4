"""A frozen text classifier, from a local folder or a hub name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from palette.errors import BackboneError
from palette.models import identify, locate


@dataclass(frozen=True)
class Classifier:
    """A frozen text-classification model."""

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    """The names that it gives, as its configuration has them."""
    fingerprint: str

    def name(self, text: str) -> str:
        """The likeliest name of a text, which is cut to what the model can read."""
        # Models of RoBERTa's kind count positions from behind the padding token's.
        positions = getattr(self.model.config, "max_position_embeddings", 512) - 2
        longest = int(min(self.tokenizer.model_max_length, positions))
        inputs = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            logits = self.model(**inputs).logits[0]
        return self.labels[int(logits.argmax())]


def load_classifier(name: str) -> Classifier:
    """The classifier of a local folder or a hub name.

    Raises:
        BackboneError: if there is none.
    """
    folder = locate(name)
    logging.disable_progress_bar()
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise BackboneError(
            "a classifier's folder must hold a sequence classification model and its tokenizer",
            got=f"{type(error).__name__}",
            remedy="check its files",
            where=folder,
        ) from error
    model.requires_grad_(False)
    model.eval()
    names = model.config.id2label
    return Classifier(model, tokenizer, tuple(names[i] for i in sorted(names)), identify(folder))
