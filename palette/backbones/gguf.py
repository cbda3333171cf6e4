"""A model in one GGUF file, made a folder like any other: dequantised once, into the user's cache."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from palette.errors import BackboneError, first_line
from palette.files import ELSEWHERE_CACHED, cache_folder, unwritable
from palette.fingerprints import fingerprint_file


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
