"""The tensors of an adapter file, read strictly: whole, named as LoRA factors, paired, finite."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from palette.adapters.configuration import Configuration
from palette.adapters.lora import LoraModule
from palette.artefacts import CARD_KEY
from palette.errors import AdapterError
from palette.shapes import Tensor

PREFIX = "base_model.model."
MODULE_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", re.ASCII)
KEY = re.compile(f"{re.escape(PREFIX)}({MODULE_NAME.pattern})" + r"\.(lora_[AB])\.weight", re.ASCII)
FOREIGN_KEYS = {
    "lora_magnitude_vector": "DoRA, which rescales the backbone's own weights",
    "lora_embedding_": "LoRA on embeddings",
    "lora_B.bias": "a bias on lora_B, which ΔW cannot hold",
}
FACTORS = ("lora_A", "lora_B")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file and its card, empty if there is none.

    The bytes are read once, so that what was checked is what is loaded.

    Raises:
        AdapterError: if the file is damaged or its card is not a JSON object.
    """
    try:
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        metadata = strict_json(header.decode()).get("__metadata__", {})
        card = strict_json(metadata.get(CARD_KEY, "{}"))
        if not isinstance(card, dict):
            raise ValueError("its card is not an object")
    except (SafetensorError, OSError, ValueError, LookupError, RecursionError) as error:
        raise AdapterError(
            "an adapter must be a whole safetensors file",
            got=ascii(str(error))[1:-1][:160],
            remedy="copy or train it again",
            where=path,
        ) from error
    return tensors, card


def strict_json(text: str) -> Any:
    """The value of a JSON text in which no key stands twice and no number is NaN.

    Raises:
        ValueError: if the text is not such JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a name in its header stands twice")
        return value

    def refuse(constant: str) -> Any:
        raise ValueError(f"its card holds {constant}")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def paired(tensors: Mapping[str, Tensor], where: Path) -> dict[str, dict[str, Tensor]]:
    """The two factors of every module, by module path, in the order of the paths.

    Raises:
        AdapterError: if a tensor is no factor of plain LoRA, or a factor is missing.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for key in sorted(tensors):
        match = KEY.fullmatch(key)
        if match is None:
            reasons = [meaning for part, meaning in FOREIGN_KEYS.items() if part in key]
            raise AdapterError(
                f"an adapter must hold {PREFIX}<module>.lora_A.weight and lora_B.weight only",
                got=f"{ascii(key)[1:-1][:120]}, {(*reasons, 'a tensor that is no factor')[0]}",
                where=where,
            )
        modules.setdefault(match[1], {})[match[2]] = tensors[key]
    if not modules:
        raise AdapterError("an adapter must adapt a module", got="an empty file", where=where)
    for name, factors in modules.items():
        missing = [factor for factor in FACTORS if factor not in factors]
        if missing:
            raise AdapterError(
                "a module must have both factors", got=f"no {missing[0]} for {name}", where=where
            )
    return modules


def joined(name: str, factors: Mapping[str, Tensor], configuration: Configuration, where: Path) -> LoraModule:
    """One module from its factors, in float32, with the scale that the configuration gives it.

    Raises:
        AdapterError: if the factors do not fit each other or the rank, or are not finite.
    """
    down, up = factors["lora_A"], factors["lora_B"]
    problem = None
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.numel():
        problem = f"lora_A {list(down.shape)} and lora_B {list(up.shape)}"
    elif not configuration.ranks_vary and down.shape[0] != configuration.rank:
        problem = f"rank {down.shape[0]} where the configuration says {configuration.rank}"
    elif down.dtype not in DTYPES or up.dtype not in DTYPES:
        problem = f"{down.dtype} and {up.dtype}"
    elif not (torch.isfinite(down.float()).all() and torch.isfinite(up.float()).all()):
        problem = "NaN or infinity"
    if problem is not None:
        raise AdapterError(
            "the factors of a module must be finite float matrices [rank d_in] and [d_out rank]",
            got=f"{problem} for {name}",
            remedy="train or export it again",
            where=where,
        )
    return LoraModule(down.float(), up.float(), configuration.scale(name, down.shape[0]))
