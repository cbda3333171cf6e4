"""Control tokens as one safetensors file with its card, and as a PEFT prompt-tuning adapter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
from palette.mosaic.settings import Place, Sign
from palette.mosaic.tokens import ControlTokens

FORMAT = "palette-tokens/1"
FILE = Path("control_tokens.safetensors")
FRAME = ("format", "backbone", "categories", "slots", "place", "sign")
"""The entries of a written card that the file needs; all others are the maker's."""


def write_tokens(path: Path, tokens: ControlTokens) -> None:
    """Writes control tokens, one tensor ``[slot d_model]`` a category, the same bytes each time.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    card = {
        **tokens.card,
        "format": FORMAT,
        "backbone": {"name": tokens.backbone.name, "fingerprint": tokens.backbone.fingerprint},
        "categories": list(tokens.categories),
        "slots": tokens.slots,
        "place": tokens.place,
        "sign": tokens.sign,
    }
    write_tensors(path, {name: one.float() for name, one in tokens.embeddings.items()}, card)


def read_tokens(path: Path) -> ControlTokens:
    """The control tokens of a file, or of a folder that holds one.

    Raises:
        AdapterError: if it is missing or damaged, or its card does not say what is needed.
    """
    path = path / FILE if path.is_dir() else path
    header = read_header(path)
    card = card_of(header)
    where = header.path
    if card.get("format") != FORMAT:
        raise AdapterError(
            f"a file of control tokens must have a card of the format {FORMAT}",
            got=ascii(card.get("format"))[:40],
            remedy="give the file that `palette tokens train` wrote",
            where=where,
        )
    _check_card(card, header)
    names = sorted(header.entries)
    stated = card["backbone"]
    return ControlTokens(
        dict(zip(names, read_stored(header, names), strict=True)),
        BackboneIdentity(stated["name"], stated["fingerprint"]),
        card["sign"],
        card["place"],
        {key: card[key] for key in card if key not in FRAME},
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
    if broken := [name for name, held in laws.items() if not held]:
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
            remedy="name active categories" if not chosen else "train them with place: before",
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
    card = {"format": FORMAT, "active": list(chosen), "digest": tokens.digest, "config": json.dumps(fields)}
    write_tensors(folder / WEIGHTS, {"prompt_embeddings": prefix}, card)
    write_json(folder / CONFIG, fields)
