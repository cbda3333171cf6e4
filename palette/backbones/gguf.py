"""A model in one GGUF file, made a folder like any other, and what llama.cpp calls its matrices."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from palette.errors import BackboneError, first_line
from palette.files import ELSEWHERE_CACHED, cache_folder, unwritable
from palette.fingerprints import fingerprint_file
from palette.shapes import Float, Tensor

FAMILIES = {
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "granite": ("granite", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "gemma": ("gemma", False),
    "gemma2": ("gemma2", False),
    "gemma3_text": ("gemma3", False),
    "phi3": ("phi3", False),
    "olmo2": ("olmo2", False),
}
"""By ``model_type``: llama.cpp's name, and whether it turns the rows of queries and keys, whose two halves of
a head it rotates as neighbours. Families whose matrices it cuts or joins in another way are none of these."""


def dequantised(file: Path) -> Path:
    """The folder with the model of a GGUF file, in single precision; made where it is met first.

    It is in the user's cache, by the file's digest, and takes about four bytes a parameter.

    Raises:
        BackboneError: if the file holds no causal language model that chats, or the library that reads it
            is not installed.
        OutputError: if the disk cannot take it.
    """
    folder = cache_folder() / "models" / f"{file.stem}-{fingerprint_file(file)[:16]}"
    if (folder / "config.json").is_file():
        return folder
    model, tokenizer = _read(file)
    # Whole or not at all, whenever this is cut short.
    fresh = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        # Another process may have made it in the meantime, to the same bytes.
        if not folder.exists():
            fresh.rename(folder)
    except OSError as error:
        raise unwritable(folder, error, ELSEWHERE_CACHED) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def require_gguf(where: Path) -> None:
    """Returns when the library is there that reads and writes GGUF files.

    Raises:
        BackboneError: if it is not.
    """
    if find_spec("gguf") is None:
        raise BackboneError(
            "a GGUF file is read and written by the package gguf",
            got="none installed",
            remedy="pip install 'palette-llm[real]'",
            where=where,
        )


def _read(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a file, one that can be saved, and its tokenizer."""
    require_gguf(file)
    logging.disable_progress_bar()
    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:
        raise BackboneError(
            "a GGUF file must hold a causal language model and its tokenizer, of a kind that is read",
            got=first_line(error),
            where=file,
        ) from error
    # The library saves no model that was quantised, and this one is so no more.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model, tokenizer


@dataclass(frozen=True)
class GgufNames:
    """The names of one model's matrices in a GGUF file."""

    model_type: str
    heads: dict[str, int]
    """How many heads the rows of a module are of that are turned, by the last part of its name."""
    names: Any

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the family."""
        return FAMILIES[self.model_type][0]

    def name(self, module: str) -> str | None:
        """The tensor of a module's weight; None where there is none."""
        plain = module.replace("model.language_model.", "model.")
        found: str | None = self.names.get_name(f"{plain}.weight", try_suffixes=(".weight",))
        return found

    def turned(self, module: str, B: Float[Tensor, "d_out rank"]) -> Float[Tensor, "d_out rank"]:
        """lora_B with its rows in the order of that tensor's."""
        heads = self.heads.get(module.rpartition(".")[2])
        return B if heads is None else B.view(heads, 2, -1, B.shape[1]).transpose(1, 2).reshape(B.shape)


def gguf_names(folder: Path) -> GgufNames:
    """The names for the model of a folder.

    Raises:
        BackboneError: if its family is none that an adapter can be written for, or gguf is not installed.
    """
    require_gguf(folder)
    import gguf

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    if config.model_type not in FAMILIES:
        raise BackboneError(
            f"an adapter in GGUF must be for one of {', '.join(FAMILIES)}",
            got=config.model_type,
            remedy="serve the folder itself, with PEFT or vLLM",
            where=folder,
        )
    name, turned = FAMILIES[config.model_type]
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    queries = config.num_attention_heads
    heads = {"q_proj": queries, "k_proj": getattr(config, "num_key_value_heads", None) or queries}
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    return GgufNames(config.model_type, heads if turned else {}, names)
