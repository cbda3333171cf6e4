"""Control tokens: a few learned embeddings a category, made for one frozen backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from palette.adapters.lora import BackboneIdentity
from palette.backbones import Backbone
from palette.errors import AdapterError
from palette.fingerprints import canonical
from palette.mosaic.settings import Place, Sign
from palette.seeding import derive_seed
from palette.shapes import Float, Tensor

WEIGHTLESS = frozenset({"turn", "end"})
"""Places inside a prompt, where the tokens take no position of their own."""

CHUNK = 4096
"""Vocabulary entries whose embeddings are read at a time."""


@dataclass(frozen=True)
class ControlTokens:
    """The embeddings ``[slot d_model]`` of every category, in float32, and what they were made for."""

    embeddings: Mapping[str, Float[Tensor, "slot d_model"]]
    backbone: BackboneIdentity
    sign: Sign = "restrict"
    place: Place = "before"
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {tuple(one.shape) for one in self.embeddings.values()}
        if len(shapes) != 1:
            raise AdapterError(
                "control tokens must be of one shape, [slot d_model], for at least one category",
                got=", ".join(map(str, sorted(shapes))) or "none",
            )
        for category, one in sorted(self.embeddings.items()):
            if not torch.isfinite(one).all():
                raise AdapterError(
                    "control tokens must be finite",
                    got=f"NaN or infinity for {category}",
                    remedy="train again",
                )

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories, sorted: the order in which their tokens stand in every prefix."""
        return tuple(sorted(self.embeddings))

    @property
    def slots(self) -> int:
        """How many tokens a category has, m."""
        return int(self.embeddings[self.categories[0]].shape[0])

    @property
    def width(self) -> int:
        """The width of an embedding, d_model."""
        return int(self.embeddings[self.categories[0]].shape[1])

    @cached_property
    def table(self) -> Float[Tensor, "virtual d_model"]:
        """All embeddings, category by category in canonical order."""
        return torch.cat([self.embeddings[category].float() for category in self.categories])

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of what the tokens do: embeddings, sign and place."""
        digest = hashlib.sha256(canonical([self.categories, self.slots, self.sign, self.place]).encode())
        digest.update(self.table.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def subset(self, active: Iterable[str]) -> tuple[str, ...]:
        """Some categories in canonical order, each once.

        Raises:
            AdapterError: if there are no tokens for one of them.
        """
        chosen = tuple(sorted(set(active)))
        if unknown := sorted(set(chosen) - set(self.categories)):
            raise AdapterError(
                "an active category must be one that there are control tokens for",
                got=", ".join(unknown),
                remedy=f"choose of {', '.join(self.categories)}",
            )
        return chosen

    def with_category(self, category: str, embedding: Float[Tensor, "slot d_model"]) -> ControlTokens:
        """The same tokens with those of one category added, or exchanged."""
        return replace(self, embeddings={**self.embeddings, category: embedding})

    def require_backbone(self, backbone: Backbone) -> None:
        """Refuses a backbone that the tokens were not made for.

        Raises:
            AdapterError: if its fingerprint or its width is another one.
        """
        stated = self.backbone.fingerprint
        if (stated is not None and stated != backbone.fingerprint) or self.width != backbone.width:
            raise AdapterError(
                "control tokens must be mounted on the backbone that they were made for",
                got=f"tokens for {self.backbone.name} ({(stated or 'unknown')[:12]}), width {self.width}, "
                f"on {backbone.name} ({backbone.fingerprint[:12]}), width {backbone.width}",
                remedy="train tokens for this backbone",
            )


@torch.no_grad()
def initial(
    backbone: Backbone, categories: Sequence[str], slots: int, seed: int
) -> dict[str, Float[Tensor, "slot d_model"]]:
    """Untrained embeddings of each category, drawn as the vocabulary's embeddings are spread.

    Each coordinate is normal with the mean and deviation that it has over the vocabulary, as the model
    reads it: some scale their embeddings. A category's draw depends on its name alone.
    """
    module: Any = backbone.model.get_input_embeddings()
    size, device = int(module.weight.shape[0]), module.weight.device
    parts = [module(torch.arange(i, min(i + CHUNK, size), device=device)) for i in range(0, size, CHUNK)]
    known = torch.cat([part.to("cpu", torch.float32) for part in parts])
    mean, deviation = known.mean(0), known.std(0)
    found = {}
    for category in sorted(categories):
        generator = torch.Generator().manual_seed(derive_seed(seed, "control tokens", category))
        found[category] = mean + deviation * torch.randn(slots, known.shape[1], generator=generator)
    return found
