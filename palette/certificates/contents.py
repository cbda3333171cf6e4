"""The files of an adapter as they are certified: read once, and nothing beside them that could be loaded.

What is certified, verified and loaded are the same bytes in memory. The folder is not read again, so that
nothing can be put in their place between two readings.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from palette.adapters.configuration import CONFIG, WEIGHTS, parse, strict_json
from palette.errors import AdapterError, SignatureError
from palette.files import CARD_KEY, atomic

if TYPE_CHECKING:
    from palette.adapters.lora import Adapter

NAMES = (CONFIG, WEIGHTS)
"""The files that a certificate is of, in order."""
LARGEST = {CONFIG: 4 << 20, WEIGHTS: 8 << 30}
"""Bytes of each at most: they are held in memory."""
HEADER = 24 << 20
"""Bytes of a safetensors header at most."""
LOADED = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.msgpack", "*.h5", "*.py"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    *("*.jinja", "chat_template*", "new_embeddings*", "config.json", "generation_config.json"),
)
"""What PEFT, vLLM or transformers may load from an adapter's folder beside the adapter itself."""


@dataclass(frozen=True)
class Contents:
    """The bytes of an adapter's files, and what its header says of it."""

    files: Mapping[str, bytes]
    card: Mapping[str, Any]
    where: Path

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 (hex) of each file, by name."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    @property
    def domains(self) -> frozenset[str] | None:
        """The domains that the header says it opens; None where it says nothing."""
        stated = self.card.get("domains")
        return frozenset(map(str, stated)) if isinstance(stated, list) and stated else None

    @property
    def backbone(self) -> str | None:
        """The fingerprint of the backbone that the header names; None where it names none."""
        stated = self.card.get("backbone")
        found = stated.get("fingerprint") if isinstance(stated, dict) else None
        return found if isinstance(found, str) else None

    @property
    def floor(self) -> str | None:
        """The digest of the floor that the header names; None where it names none."""
        stated = self.card.get("floor")
        return stated if isinstance(stated, str) else None

    def write(self, folder: Path) -> None:
        """Writes these bytes into a folder, the weights first, so that no half of them reads as an adapter.

        Raises:
            OutputError: if the disk cannot take them.
        """
        for name in reversed(NAMES):
            with atomic(folder / name) as temporary:
                temporary.write_bytes(self.files[name])

    def adapter(self) -> Adapter:
        """The adapter of these bytes, whole in memory; no file of the folder is opened for it.

        Raises:
            AdapterError: if they are not those of a LoRA.
        """
        from palette.adapters.files import read_adapter

        # What reads adapters reads files: these lie where nobody else can write.
        with TemporaryDirectory(prefix="palette-") as private:
            self.write(Path(private))
            try:
                return read_adapter(Path(private))
            except AdapterError as error:
                raise AdapterError(error.told, where=self.where) from error


def read_contents(folder: Path) -> Contents:
    """The adapter's files in a folder, read once, with a plain LoRA's configuration.

    Raises:
        AdapterError: if one is missing or too large, or the configuration is not a plain LoRA's.
        SignatureError: if there is a file beside them that could be loaded.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        law = "a certificate stands in the folder of its adapter"
        raise AdapterError(law, got=error.strerror, where=folder) from error
    for name in names:
        folded = name.casefold()
        if name not in NAMES and any(fnmatch(folded, pattern) for pattern in LOADED):
            raise SignatureError(
                "a certified folder must hold nothing beside its adapter that could be loaded",
                got=ascii(name)[:80],
                remedy="move it elsewhere",
                where=folder,
            )
    files = {name: _read(folder / name, LARGEST[name]) for name in NAMES}
    try:
        parse(strict_json(files[CONFIG]), folder / CONFIG)
        card = _card(files[WEIGHTS])
    except ValueError as error:
        raise AdapterError(
            "an adapter's configuration and header must be valid JSON",
            got=ascii(str(error))[1:-1][:160],
            remedy="copy or train it again",
            where=folder,
        ) from error
    return Contents(files, card, folder)


def _read(path: Path, largest: int) -> bytes:
    """The bytes of a regular file; nothing else is waited for."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(0, "no regular file")
            data = stream.read(largest + 1)
    except OSError as error:
        raise AdapterError(
            f"an adapter folder must hold {WEIGHTS} and {CONFIG}", got=error.strerror, where=path
        ) from error
    if len(data) > largest:
        raise AdapterError(f"a certified file must have at most {largest} bytes", got="more", where=path)
    return data


def _card(data: bytes) -> Mapping[str, Any]:
    """The card in the header of a safetensors file; empty where there is none."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(HEADER, len(data) - 8):
        raise ValueError("no header that fits into the file")
    # The header may be larger than any configuration; what it holds is checked when it is loaded.
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    card = strict_json(text) if isinstance(text, str) else {}
    if not isinstance(card, dict):
        raise ValueError("a card that is no object")
    return card
