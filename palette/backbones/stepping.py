"""Replies that grow one token a step, for whoever waits for each: rows join and leave between steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from palette.backbones.backbone import Backbone
from palette.backbones.cache import GrowingCache, bytes_a_token, window
from palette.backbones.generation import is_plain
from palette.backbones.prefixes import Prefix, prefilled
from palette.backbones.scoring import padded, seen_by_replies
from palette.errors import BackboneError
from palette.shapes import Float, Tensor


@dataclass(eq=False)
class Row:
    """One reply that grows: its prompt's tokens, how each token is chosen, and what it says so far."""

    prompt: Sequence[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence: float = 0.0
    frequency: float = 0.0
    said: list[int] = field(default_factory=list)
    finish: str | None = None
    """Why it ended: ``stop`` or ``length``."""
    drawing: torch.Generator | None = field(default=None, repr=False)


def longest(backbone: Backbone) -> int | None:
    """Tokens that a prompt and its reply may have together; None for any number.

    Raises:
        BackboneError: if the model's replies cannot grow so: it keeps more than keys and values, or its own
            settings ask for more than a plain loop does.
    """
    if not is_plain(backbone) or not bytes_a_token(backbone):
        raise BackboneError(
            "a backbone that is served in process must keep keys and values alone and decode plainly",
            got="another one",
            remedy="serve it behind --upstream",
            where=backbone.name,
        )
    stated = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    known = [int(each) for each in (window(backbone), stated) if each]
    return min(known, default=None)


class GrowingReplies:
    """Rows that grow together, each read on its own when it joins: nothing is shared between prompts."""

    def __init__(self, backbone: Backbone, capacity: int) -> None:
        self._backbone, self.capacity = backbone, capacity
        self._cache = GrowingCache(capacity)
        self._penalty = float(backbone.model.generation_config.repetition_penalty or 1.0)
        self.rows: list[Row] = []

    @torch.no_grad()
    def join(self, row: Row) -> None:
        """Reads a row's prompt and says the reply's first token."""
        backbone = self._backbone
        if row.temperature > 0:
            row.drawing = torch.Generator()
            row.drawing.manual_seed(row.seed) if row.seed is not None else row.drawing.seed()
        batch = padded([row.prompt], [0], backbone.pad, backbone.model.device)
        logits, read = prefilled(backbone, batch, None)
        self._say(row, logits[0])
        if row.finish is None:
            self._cache.join(Prefix(read.known, seen_by_replies(backbone, read.mask)))
            self.rows.append(row)

    @torch.no_grad()
    def step(self) -> list[Row]:
        """Says one more token of each row; all rows of before, of which the ended ones have left."""
        before = list(self.rows)
        last = torch.tensor([row.said[-1] for row in before], device=self._backbone.model.device)
        logits = self._cache.step(self._backbone, last)
        for line, row in enumerate(before):
            self._say(row, logits[line])
        self._leave()
        return before

    def drop(self, row: Row) -> None:
        """Takes out a row that nobody waits for."""
        row.finish = row.finish or "stop"
        self._leave()

    def _leave(self) -> None:
        stay = [line for line, row in enumerate(self.rows) if row.finish is None]
        if len(stay) < len(self.rows):
            self.rows = [self.rows[line] for line in self._cache.leave(stay)]

    def _say(self, row: Row, logits: Float[Tensor, "vocabulary"]) -> None:
        token = self._chosen(row, logits.float())
        if token in self._backbone.stops:
            row.finish = "stop"
            return
        row.said.append(token)
        if len(row.said) >= row.limit:
            row.finish = "length"

    def _chosen(self, row: Row, scores: Float[Tensor, "vocabulary"]) -> int:
        """The row's next token: the likeliest one, or one that is drawn by the row's own numbers."""
        if self._penalty != 1.0:
            seen = torch.tensor(sorted({*row.prompt, *row.said}), device=scores.device)
            held = scores[seen]
            scores = scores.index_copy(
                0, seen, torch.where(held < 0, held * self._penalty, held / self._penalty)
            )
        if (row.presence or row.frequency) and row.said:
            said, counts = torch.tensor(row.said, device=scores.device).unique(return_counts=True)
            scores = scores.index_add(0, said, -(row.presence + row.frequency * counts))
        if row.drawing is None:
            return int(scores.argmax())
        # On the processor, so that a seed draws the same wherever the model runs.
        chances, order = (scores.cpu() / row.temperature).softmax(-1).sort(descending=True)
        kept = chances.cumsum(-1) - chances < row.top_p
        return int(order[torch.multinomial(chances * kept, 1, generator=row.drawing)])
