"""Loading a backbone from a local folder, whole or without its numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from palette.backbones.backbone import Backbone
from palette.backbones.padding import proven
from palette.backbones.pictures import Pictures
from palette.backbones.placement import BITS, DeviceMap, main_device, placed, settle
from palette.errors import BackboneError, first_line
from palette.files import read_json, stated_in
from palette.models import identify, is_large
from palette.settings import Thinking
from palette.shapes import Tensor

CONFIG = "config.json"
HALVES = ("amx_bf16", "avx512_bf16")
"""Units of a CPU for products of bfloat16; at a real model's sizes one took a quarter of float32's time."""
PROCESSOR_TEMPLATE, GENERATION = "chat_template.json", "generation_config.json"
"""Where processors kept their chat template before it was a file of its own; where the end tokens are."""

SHAPES = {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
"""How many kernels the library keeps of those that it makes for each shape of a product in half precision, as
its environment says it. A thousand a thread, its own default, are two gigabytes of a training whose batches
are all of different lengths; they are made anew in milliseconds (benchmarks/LOG.md)."""


def load_backbone(
    folder: Path,
    name: str | None = None,
    *,
    dtype: str = "float32",
    device: str | DeviceMap = "cpu",
    thinking: Thinking = "closed",
    system: str = "",
) -> Backbone:
    """The frozen model of a folder, in evaluation mode, with a left-padding tokenizer.

    ``device`` may say by module where each lies, on a device or on the disk; ``auto`` fills what there is.

    Raises:
        BackboneError: if the folder holds no model that can chat, its template takes no ``system``, or the
            machine has no such device.
    """
    name = name or str(folder)
    for variable, most in SHAPES.items():
        os.environ.setdefault(variable, most)
    logging.disable_progress_bar()
    place = _told(folder, dtype, device)
    try:
        model, found = _class_of(folder).from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            # Eager attention is the fastest at the organism's size; large models are left to the library.
            attn_implementation=None if is_large(folder) else "eager",
            **place,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    except Exception as error:
        raise _unfit(folder, error) from error
    if missing := sorted(found["missing_keys"]):
        # The library draws them at random, with a warning.
        raise _unfit(folder, ValueError(f"no weights for {missing[0]} and {len(missing) - 1} others"))
    _require_decoder(model, folder)
    _require_chat(tokenizer, folder)
    model.requires_grad_(False)
    model.eval()
    # What is quantised or lies in several places the library has placed already, and lets nobody move.
    model = model if "device_map" in place else model.to(device)
    settle(model)
    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_side_by_side)
    if (sight := _sight(folder, model)) is not None:
        sight.mount(model, name)
    backbone = Backbone(model, tokenizer, name, identify(folder), thinking, system, sight)
    backbone.template.require_system()
    return proven(backbone)


def _told(folder: Path, dtype: str, device: str | DeviceMap) -> dict[str, Any]:
    """What the library is told of the precision and the place of a folder's weights."""
    compute = precision(dtype, folder, main_device(device))
    stored = stated_in(folder / CONFIG).get("quantization_config")
    return {"dtype": compute, **placed(device, dtype, compute, stored)}


def precision(named: str, folder: Path, device: str) -> torch.dtype:
    """The precision of a recipe's ``dtype``, in which a folder's model runs on a device.

    ``auto`` is bfloat16 for a large model where the device has units that multiply it, else float32. Where
    matrices are in few bits, it is that of all other numbers.
    """
    if named != "auto" and named not in BITS:
        known: torch.dtype = getattr(torch, named)
        return known
    return torch.bfloat16 if is_large(folder) and _multiplies_halves(device) else torch.float32


def _multiplies_halves(device: str) -> bool:
    """Whether a device has units for products of bfloat16, which others are slower in."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and any(torch.cpu.get_capabilities().get(unit) for unit in HALVES)


def _side_by_side(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of the last positions alone, streams do not lie side by side, and torch takes a product for each row.

    In half precision it even copies the vocabulary's weights for each, which was three passes of four.
    """
    return tuple(each.contiguous() for each in args)


def load_sketch(
    folder: Path,
    name: str | None = None,
    *,
    dtype: str = "float32",
    device: str | DeviceMap = "cpu",
    thinking: Thinking = "closed",
    system: str = "",
) -> Backbone:
    """The model of a folder without its numbers and without identity: it renders prompts, and runs nothing.

    It is on no device, and of the precision that it would have on ``device``.

    Raises:
        BackboneError: if the folder holds no model that can chat, its template takes no ``system``, or the
            machine has no such device.
    """
    told, model = _told(folder, dtype, device), without_weights(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    except Exception as error:
        raise _unfit(folder, error) from error
    if model is None:
        raise _unfit(folder, ValueError("a configuration that no model can be built of"))
    _require_decoder(model, folder)
    _require_chat(tokenizer, folder)
    if (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    shell = model.to(told["dtype"])
    sketch = Backbone(shell, tokenizer, name or str(folder), "", thinking, system, _sight(folder, model))
    sketch.template.require_system()
    return sketch


def _unfit(folder: Path, error: Exception) -> BackboneError:
    return BackboneError(
        "a model folder must hold a causal language model and its tokenizer",
        got=first_line(error),
        remedy="check its files",
        where=folder,
    )


def _sight(folder: Path, model: Any) -> Pictures | None:
    return Pictures(folder) if type(model.config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else None


def _class_of(folder: Path) -> Any:
    """The class that reads a folder's weights whole: a model that sees is more than its decoder."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    seeing = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if seeing else AutoModelForCausalLM


def without_weights(folder: Path) -> Any | None:
    """The model of a folder without its numbers; None where no model of the library's can be built."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return _class_of(folder).from_config(config)
    except Exception:  # A damaged configuration, or one of another library, may fail in any way.
        return None


def _require_decoder(model: Any, folder: Path) -> None:
    """Refuses models that read with other blocks than they answer with, as Florence 2 does."""
    if model.config.is_encoder_decoder:
        raise BackboneError(
            "a backbone must be a decoder alone",
            got=f"one of the kind {model.config.model_type}, an encoder and a decoder",
            remedy="use another model",
            where=folder,
        )


def _require_chat(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Gives the tokenizer the chat template of the processor beside it, where it has none of its own.

    And a token to pad with.
    """
    if not tokenizer.chat_template and (folder / PROCESSOR_TEMPLATE).is_file():
        tokenizer.chat_template = read_json(folder / PROCESSOR_TEMPLATE).get("chat_template")
    if not tokenizer.chat_template:
        raise BackboneError(
            "a backbone must be a chat model",
            got="a tokenizer without a chat template",
            remedy="add one to the tokenizer",
            where=folder,
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
