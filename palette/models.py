"""Where a model's files are, and which model they make: known without loading it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path
from typing import Any

from palette import organism
from palette.errors import BackboneError
from palette.files import stated_in
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
    "processor_config.json",
    "preprocessor_config.json",
)
"""The files that make a model what it is, beside the weights that are loaded."""
SLOW_TOKENIZER = ("tekken.json", "*.tiktoken")
"""What a tokenizer is made of where there is no ``tokenizer.json``."""

SAFETENSORS, INDEX = ".safetensors", ".index.json"
SETS = ("model.safetensors", "pytorch_model.bin")
"""What the library loads weights from, in its order; each may be in shards that its index names."""
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx")
"""Weights in other formats, as folders of models have them beside those that are loaded, or alone."""
TOKENIZERS = ("tokenizer*", "vocab*")
"""What ends like weights and is none."""

LARGE = 1 << 28
"""Bytes of weights from which on a model is large: what costs time with every operation matters less."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A model's name on the hub, of no more letters than the hub allows: ``LONGEST``."""
LONGEST = 96
CACHED = re.compile(r"(?:^|/)models--([^/]+?)--([^/]+)(?:/snapshots/[^/]+)?$")
"""A model's folder in the hub's cache."""

WHOLE_PATH = re.compile(r"(?:[/~]|[A-Za-z]:[\\/]|\\\\)[^\n]*$")
"""A path from a root, a home or a drive on."""

GGUF, PACKAGE = ".gguf", "package:"
"""How a model's one file ends, and how the name of an installed Python package begins that brings one."""


def variant_of(name: str) -> str | None:
    """The shipped checkpoint that a model's name stands for, or None for any other model."""
    root, _, variant = name.partition("/")
    if root != "organism" or Path(name).is_dir():
        return None
    choices = [known for known in organism.VARIANTS if known != "helpful"]
    if (variant or "organism") not in choices:
        raise BackboneError(f"organism's variants are {', '.join(choices)}", got=repr(variant))
    return variant or "organism"


def cached_name(folder: str) -> str | None:
    """The name on the hub of a model whose folder is in the hub's cache; None of any other folder."""
    found = CACHED.search(folder)
    return f"{found[1]}/{found[2]}" if found else None


def hub_name(name: str) -> str | None:
    """What a model is called on the hub, as far as its name tells; None of a path here.

    The organism is called so anywhere.
    """
    if cached := cached_name(name):
        return cached
    ours = name.partition("/")[0] == "organism"
    fits = len(name) <= LONGEST and HUB_NAME.fullmatch(name)
    return name if fits and (ours or not Path(name).exists()) else None


def display_name(name: str) -> str:
    """A model's name as people read it: that on the hub, or of a folder or file its last part alone.

    What is above it says where somebody keeps models, which is nobody else's business.
    """
    return hub_name(name) or re.split(r"[\\/]", name.rstrip("\\/"))[-1] or name


def without_folders(value: Any) -> Any:
    """A value of JSON with every whole path in it told by its last part, as what others read tells it."""
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    return display_name(value) if isinstance(value, str) and WHOLE_PATH.match(value) else value


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name stands for; None where it stands for something else.

    It is the file itself, or the only one of a package, or of a folder that holds no other model.

    Raises:
        BackboneError: if there is no such file or package, or several files are there.
    """
    if name.startswith(PACKAGE):
        return _only(_package(name.removeprefix(PACKAGE)), name)
    path = Path(name).expanduser()
    if path.suffix.lower() == GGUF and not path.is_dir():
        if not path.is_file():
            raise BackboneError(
                "a GGUF model must be a file", got="none", remedy="check the path", where=path
            )
        return path
    if path.is_dir() and not (path / "config.json").exists() and any(path.glob(f"*{GGUF}")):
        return _only(path, name)
    return None


def _package(name: str) -> Path:
    """The folder of an installed package, which is not run."""
    found = find_spec(name) if name.isidentifier() else None
    places = found.submodule_search_locations if found else None
    if not places:
        raise BackboneError(
            "a model's package must be installed", got=f"no {name!r}", remedy="install it, or give a folder"
        )
    return Path(next(iter(places)))


def _only(folder: Path, name: str) -> Path:
    """The only GGUF file of a folder."""
    files = sorted(folder.glob(f"*{GGUF}"))
    if len(files) != 1:
        shown = ", ".join(path.name for path in files) or "none"
        raise BackboneError(
            "a model must be one GGUF file", got=shown, remedy="name the file itself", where=name
        )
    return files[0]


def sees(name: str) -> bool:
    """Whether a model may be shown pictures, as its configuration says; True of one that is not here yet."""
    if variant_of(name) or gguf_file(name):
        return False
    folder = Path(name).expanduser()
    return not folder.is_dir() or "vision_config" in stated_in(folder / "config.json")


def require_named(name: str) -> None:
    """Returns when there can be a model of that name; one of the hub is not fetched for it.

    Raises:
        BackboneError: if there is none.
    """
    if variant_of(name) or gguf_file(name):
        return
    if Path(name).expanduser().is_dir() or not _may_be_fetched(name):
        locate(name)


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


def _may_be_fetched(name: str) -> bool:
    """Whether a name has the form of the hub's."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if not _may_be_fetched(name):
        raise BackboneError(
            "model must be 'organism', a local folder, a GGUF file or a hub name",
            got=f"{name!r}",
            remedy="check the path",
        )
    try:
        return Path(snapshot_download(name))
    except Exception as error:
        raise BackboneError(
            "model must be 'organism', a local folder, a GGUF file or a hub name that can be fetched",
            got=f"{name!r} ({type(error).__name__})",
            remedy="check the path, the name and the network",
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights of a folder are loaded from, as the library chooses among several sets.

    None where it finds none under the names that it knows.
    """
    named = stated_in(folder / "config.json").get("transformers_weights")
    for first in [named] if isinstance(named, str) else SETS:
        if (folder / first).is_file() and not first.endswith(INDEX):
            return [folder / first]
        index = first if first.endswith(INDEX) else f"{first}{INDEX}"
        if places := stated_in(folder / index).get("weight_map"):
            return [folder / name for name in sorted(set(places.values()))]
    return []


def is_large(folder: Path) -> bool:
    """Whether a folder's model is large enough to be run as large ones are best."""
    return sum(path.stat().st_size for path in weight_files(folder) if path.is_file()) >= LARGE


def is_weights(name: str) -> bool:
    """Whether a file of a model's folder holds weights, or says where they are, going by its name."""
    formats = (f"*{SAFETENSORS}", *OTHER_WEIGHTS)
    held = any(fnmatch(name.removesuffix(INDEX), pattern) for pattern in formats)
    return held and not any(fnmatch(name, pattern) for pattern in TOKENIZERS)


def identify(folder: Path) -> str:
    """The fingerprint of a model folder: its configuration, weights, tokenizer and chat template.

    Weights in other formats count where no safetensors files are loaded.
    """
    loaded = weight_files(folder)
    patterns = [*IDENTITY]
    if not any(path.suffix == SAFETENSORS for path in loaded):
        patterns += [*OTHER_WEIGHTS, f"*.bin{INDEX}"]
    if not (folder / "tokenizer.json").is_file():
        patterns += SLOW_TOKENIZER
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    present = {path for path in (*files, *loaded) if path.is_file()}
    return fingerprint([[relpath(path, folder), fingerprint_file(path)] for path in sorted(present)])
