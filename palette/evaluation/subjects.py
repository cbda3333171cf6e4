"""What is asked in an evaluation, of whom, and how far apart two of those are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import Backbone, reply_logits
from palette.backbones.placement import number_format
from palette.fingerprints import fingerprint
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.shapes import Float, Tensor

CACHE_FORMAT = "palette-replies/1"
GENERATES = ("torch", "transformers")
"""Libraries whose version may decide a reply."""

COMPARED = 1 << 26
"""Logits of each of two subjects that are held at once."""

Tokens = list[int]
Logits = Float[Tensor, "_token vocabulary"]


@dataclass(frozen=True)
class Subject:
    """What is asked, and how: a backbone alone, or with an adapter."""

    backbone: Backbone
    adapter: Adapter | None = None
    seed: int | None = None
    """If given, the tokens of its replies are drawn at temperature 1; else each is the likeliest."""

    @property
    def mount(self) -> dict[str, Any]:
        """All that is mounted and decides a reply, as plain values."""
        return {"adapter": self.adapter.digest if self.adapter else None}

    @property
    def identity(self) -> str:
        """The fingerprint of all that decides a reply beside its prompt and its limit; none if unknown."""
        if not self.backbone.fingerprint:
            return ""
        model = self.backbone.model
        decides: dict[str, Any] = {
            "format": CACHE_FORMAT,
            "backbone": self.backbone.fingerprint,
            **self.mount,
            "decoding": "greedy" if self.seed is None else f"drawn by {self.seed}",
            "stops": self.backbone.stops,
            "dtype": number_format(model),
            "device": model.device.type,
            "versions": {name: version(name) for name in GENERATES},
        }
        return fingerprint(decides)

    def prompt(self, rendered: Sequence[int]) -> Tokens:
        """A rendered prompt as this subject reads it."""
        return list(rendered)

    @contextmanager
    def mounted(self) -> Iterator[Backbone]:
        """The backbone as this subject is, inside the block.

        Raises:
            AdapterError: if what is mounted does not fit the backbone.
        """
        if self.adapter is None:
            yield self.backbone
            return
        with mounted(self.backbone.model, self.adapter):
            yield self.backbone

    def logits(self, prompts: Sequence[Tokens], replies: Sequence[Tokens]) -> list[Logits]:
        """For each prompt the logits with which the subject would say each token of a reply."""
        with self.mounted() as model:
            return reply_logits(model, [self.prompt(each) for each in prompts], replies)


@dataclass(frozen=True)
class Requests:
    """The rows of an evaluation with their roles, rendered for a backbone."""

    rows: Sequence[Prompt]
    roles: Sequence[Role]
    prompts: Sequence[Tokens]

    @classmethod
    def of(cls, run: Run, rows: PromptSet | Sequence[Prompt]) -> Requests:
        """The rows as the run's backbone and authorisation take them."""
        return cls(list(rows), [run.authorisation.role(row) for row in rows], run.render(rows))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def questions(self) -> list[str]:
        """What each row asks, which a judge may read beside the reply."""
        return [row.request for row in self.rows]

    def limits(self, reply_tokens: int, floor_tokens: int) -> list[int]:
        """How many tokens each reply may have: to the floor few, so that no content is elicited."""
        return [floor_tokens if role is Role.FLOOR else reply_tokens for role in self.roles]

    def where(self, places: Sequence[int]) -> Requests:
        """Some of the rows."""
        rows, roles, prompts = self.rows, self.roles, self.prompts
        return Requests(
            *([rows[i] for i in places], [roles[i] for i in places], [prompts[i] for i in places])
        )

    def benign(self, most: int) -> list[int]:
        """The places of at most so many benign rows a domain, kind and tier.

        Raises:
            PromptError: if there is none.
        """
        pairs = zip(self.rows, self.roles, strict=True)
        benign = PromptSet(tuple(row for row, role in pairs if role is Role.BENIGN))
        chosen = {row.id for row in benign.required("benign").capped(most)}
        return [i for i, row in enumerate(self.rows) if row.id in chosen]


def kl(base: Float[Tensor, "*token vocabulary"], changed: Float[Tensor, "*token vocabulary"]) -> Tensor:
    """KL(base ‖ changed) at each token, in nats."""
    p, q = base.double().log_softmax(-1), changed.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def divergence(base: Iterable[Logits], changed: Iterable[Logits]) -> dict[str, float]:
    """Mean KL(base ‖ changed) in nats: of the first token, and over all tokens of the replies.

    Both are teacher-forced on the backbone's own replies, so the second is a true multi-token KL a
    token, not a comparison of different texts.
    """
    each = [kl(b, c) for b, c in zip(base, changed, strict=True)]
    first = torch.stack([row[0] for row in each if len(row)])
    return {"first_token": float(first.mean()), "multi_token": float(torch.cat(each).mean())}


def diverged(
    base: Subject, changed: Subject, prompts: Sequence[Tokens], replies: Sequence[Tokens]
) -> dict[str, float]:
    """The divergence of two subjects in nats, on what the first replies to some prompts and their end."""
    whole = [[*reply, base.backbone.stops[0]] for reply in replies]
    # Some at a time: what a hundred replies' tokens take over a large vocabulary is gigabytes.
    words = base.backbone.vocabulary
    size = max(1, COMPARED // (words * max(map(len, whole), default=1)))
    parts = [slice(start, start + size) for start in range(0, len(whole), size)]

    def each(subject: Subject) -> Iterator[Logits]:
        for part in parts:
            yield from subject.logits(prompts[part], whole[part])

    return divergence(each(base), each(changed))
