"""Where a model's files are, and which model they make: known without loading it."""

from __future__ import annotations

from pathlib import Path

from palette import organism
from palette.errors import BackboneError
from palette.fingerprints import fingerprint, fingerprint_file

IDENTITY = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "chat_template.json",
)
"""The files that make a model what it is."""


def variant_of(name: str) -> str | None:
    """The shipped checkpoint that a model's name stands for, or None for any other model."""
    root, _, variant = name.partition("/")
    if root != "organism" or Path(name).is_dir():
        return None
    choices = [known for known in organism.VARIANTS if known != "helpful"]
    if (variant or "organism") not in choices:
        raise BackboneError(f"organism's variants are {', '.join(choices)}", got=repr(variant))
    return variant or "organism"


def locate(name: str) -> Path:
    """The local folder of a model: a path as it is, or a hub name's snapshot.

    Raises:
        BackboneError: if there is no such folder, or it holds no model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _snapshot(name)
    if not (folder / "config.json").is_file():
        raise BackboneError(
            "a model folder must hold a config.json",
            got="none",
            remedy="give the folder that save_pretrained wrote",
            where=folder,
        )
    return folder


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BackboneError(
            "model must be 'organism', a local folder or a hub name",
            got=f"{name!r}",
            remedy="check the path",
        )
    try:
        return Path(snapshot_download(name))
    except Exception as error:
        raise BackboneError(
            "model must be 'organism', a local folder or a hub name that can be fetched",
            got=f"{name!r} ({type(error).__name__})",
            remedy="check the path, the name and the network",
        ) from error


def identify(folder: Path) -> str:
    """The fingerprint of a model folder: its configuration, weights and tokenizer."""
    files = sorted({path for pattern in IDENTITY for path in folder.glob(pattern)})
    return fingerprint([[path.name, fingerprint_file(path)] for path in files])
