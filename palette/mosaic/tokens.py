"""Control tokens: a few learned embeddings a category, made for one frozen backbone, and their files.

They are written as one safetensors file with its card, and as a PEFT prompt-tuning adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from palette.adapters.files import card_of
from palette.adapters.header import Header, read_header, read_stored
from palette.adapters.lora import BackboneIdentity
from palette.adapters.writing import CONFIG, WEIGHTS
from palette.backbones import Backbone
from palette.errors import AdapterError
from palette.files import write_json, write_tensors
from palette.fingerprints import canonical
from palette.mosaic.settings import Place, Sign
from palette.seeding import derive_seed
from palette.shapes import Float, Tensor

TOKENS_FORMAT = "palette-tokens/1"
TOKENS_FILE = Path("control_tokens.safetensors")
FRAME = ("format", "backbone", "categories", "slots", "place", "sign")
"""The entries of a written card that the file needs; all others are the maker's."""

CHUNK = 4096
"""Vocabulary entries whose embeddings are read at a time."""

Embedding = Float[Tensor, "slot d_model"]


@dataclass(frozen=True)
class ControlTokens:
    """The embeddings ``[slot d_model]`` of every category, in float32, and what they were made for."""

    embeddings: Mapping[str, Embedding]
    backbone: BackboneIdentity
    sign: Sign = "restrict"
    place: Place = "before"
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {tuple(embedding.shape) for embedding in self.embeddings.values()}
        if len(shapes) != 1:
            raise AdapterError(
                "control tokens must be of one shape, [slot d_model], for at least one category",
                got=", ".join(map(str, sorted(shapes))) or "none",
            )
        for category, embedding in sorted(self.embeddings.items()):
            if not torch.isfinite(embedding).all():
                raise AdapterError(
                    "control tokens must be finite",
                    got=f"NaN or infinity for {category}",
                    remedy="train them again",
                )

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories, sorted: the order in which their tokens stand in every prefix."""
        return tuple(sorted(self.embeddings))

    @property
    def slots(self) -> int:
        """How many tokens a category has, m."""
        return len(self.embeddings[self.categories[0]])

    @property
    def width(self) -> int:
        """The width of an embedding, d_model."""
        return int(self.table.shape[1])

    @cached_property
    def table(self) -> Float[Tensor, "virtual d_model"]:
        """All embeddings, category by category in canonical order."""
        return torch.cat([self.embeddings[category].float() for category in self.categories])

    @property
    def norms(self) -> dict[str, float]:
        """The norm of each category's embeddings together."""
        return {name: round(float(each.norm()), 4) for name, each in sorted(self.embeddings.items())}

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

    def with_categories(self, embeddings: Mapping[str, Embedding]) -> ControlTokens:
        """The same tokens with those of some categories added, or exchanged."""
        return replace(self, embeddings={**self.embeddings, **embeddings})

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


def identity(backbone: Backbone) -> BackboneIdentity:
    """What tokens made for a backbone say of it."""
    return BackboneIdentity(backbone.name, backbone.fingerprint)


@torch.no_grad()
def initial(backbone: Backbone, categories: Sequence[str], slots: int, seed: int) -> dict[str, Embedding]:
    """Untrained embeddings of each category, drawn as the vocabulary's embeddings are spread.

    Each coordinate is normal with the mean and deviation that it has over the vocabulary, as the model
    reads it: some scale their embeddings. A category's draw depends on its name alone.
    """
    module: Any = backbone.model.get_input_embeddings()
    ids = torch.arange(int(module.weight.shape[0]), device=module.weight.device)
    known = torch.cat([module(part).to("cpu", torch.float32) for part in ids.split(CHUNK)])
    mean, deviation = known.mean(0), known.std(0)

    def drawn(category: str) -> Embedding:
        generator = torch.Generator().manual_seed(derive_seed(seed, "control tokens", category))
        return mean + deviation * torch.randn(slots, known.shape[1], generator=generator)

    return {category: drawn(category) for category in sorted(categories)}


def write_tokens(path: Path, tokens: ControlTokens) -> None:
    """Writes control tokens, one tensor ``[slot d_model]`` a category, the same bytes each time.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    card = {
        **tokens.card,
        "format": TOKENS_FORMAT,
        "backbone": {"name": tokens.backbone.name, "fingerprint": tokens.backbone.fingerprint},
        "categories": list(tokens.categories),
        "slots": tokens.slots,
        "place": tokens.place,
        "sign": tokens.sign,
    }
    write_tensors(path, {name: embedding.float() for name, embedding in tokens.embeddings.items()}, card)


def read_tokens(path: Path) -> ControlTokens:
    """The control tokens of a file, or of a folder that holds one.

    Raises:
        AdapterError: if it is missing or damaged, or its card does not say what is needed.
    """
    header = read_header(path / TOKENS_FILE if path.is_dir() else path)
    card = card_of(header)
    if card.get("format") != TOKENS_FORMAT:
        raise AdapterError(
            f"a file of control tokens must have a card of the format {TOKENS_FORMAT}",
            got=ascii(card.get("format"))[:40],
            remedy="give the file that `palette tokens train` wrote",
            where=header.path,
        )
    _check_card(card, header)
    names = sorted(header.entries)
    return ControlTokens(
        dict(zip(names, read_stored(header, names), strict=True)),
        BackboneIdentity(card["backbone"]["name"], card["backbone"]["fingerprint"]),
        card["sign"],
        card["place"],
        {key: value for key, value in card.items() if key not in FRAME},
    )


def _check_card(card: Mapping[str, Any], header: Header) -> None:
    """Raises unless the card and the tensors say the same."""
    names, shapes = sorted(header.entries), {entry.shape for entry in header.entries.values()}
    backbone = card.get("backbone")
    laws = {
        "categories": card.get("categories") == names,
        "slots": len(shapes) == 1 and [len(s) for s in shapes] == [2] and card.get("slots") == min(shapes)[0],
        "dtype": {entry.dtype for entry in header.entries.values()} == {"F32"},
        "sign": card.get("sign") in get_args(Sign),
        "place": card.get("place") in get_args(Place),
        "backbone": isinstance(backbone, dict) and {"name", "fingerprint"} <= set(backbone),
    }
    if broken := [name for name, holds in laws.items() if not holds]:
        raise AdapterError(
            "the card and the tensors of a token file must agree",
            got=f"another {broken[0]}",
            remedy="train the tokens again",
            where=header.path,
        )


def export_peft(folder: Path, tokens: ControlTokens, active: Iterable[str], backbone: Backbone) -> None:
    """Writes the tokens of one subset as a PEFT prompt-tuning adapter.

    That format has one fixed prefix before everything, so it can say tokens of the place ``before`` alone.

    Raises:
        AdapterError: if no category is active or unknown, the tokens stand elsewhere, or are another
            backbone's.
        OutputError: if the disk cannot take the files.
    """
    tokens.require_backbone(backbone)
    chosen = tokens.subset(active)
    if tokens.place != "before" or not chosen:
        raise AdapterError(
            "PEFT's prompt tuning holds one prefix before everything",
            got="no active category" if not chosen else f"tokens of the place {tokens.place!r}",
            remedy="name active categories" if not chosen else "train them with train.place=before",
        )
    text = backbone.model.config.get_text_config()
    prefix = torch.cat([tokens.embeddings[name] for name in chosen])
    fields = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": tokens.backbone.name,
        "inference_mode": True,
        "num_virtual_tokens": len(prefix),
        "token_dim": tokens.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": text.num_attention_heads,
        "num_layers": text.num_hidden_layers,
        "prompt_tuning_init": "RANDOM",
    }
    card = {"format": TOKENS_FORMAT, "active": list(chosen), "digest": tokens.digest}
    write_tensors(folder / WEIGHTS, {"prompt_embeddings": prefix}, {**card, "config": json.dumps(fields)})
    write_json(folder / CONFIG, fields)
