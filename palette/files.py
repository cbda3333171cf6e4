"""Files with identity: written atomically, read strictly, and folders that know whose they are."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from palette.errors import OutputError, PaletteError
from palette.fingerprints import canonical

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "palette"
"""The safetensors metadata key under which an artefact's card (JSON) stands."""


MARKER = "run.json"
"""The file of an output folder that says whose it is."""

LOCK, LOG = "run.lock", "palette.log"
"""Files of whoever works in an output folder, which make it nobody's."""

CACHE = "PALETTE_CACHE"
"""The environment variable that names another folder than the user's usual cache."""

OWNER_ONLY = 0o600
"""The mode of a secret's file."""

ELSEWHERE = "choose another folder with --output"
"""What else a caller can do where a file cannot be written, unless another option or argument names it."""
ELSEWHERE_CACHED = f"name another folder with {CACHE}"


def cache_folder() -> Path:
    """Where is kept what costs time to make: in ``PALETTE_CACHE``, or where the user's caches are."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palette"
    return Path(os.environ.get(CACHE) or usual)


@contextmanager
def atomic(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """A temporary path beside ``path`` that is flushed and renamed onto it when the block succeeds.

    ``elsewhere`` says how to name another one, for an error message.

    Raises:
        OutputError: if the disk cannot take the file; ``path`` is then what it was before.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error, elsewhere) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def spooled(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[Any]:
    """A temporary file beside ``path`` that can be written and read, and is gone afterwards.

    Raises:
        OutputError: if the disk cannot take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a name: not even a killed process leaves it behind.
        with TemporaryFile(dir=path.parent) as stream:
            yield stream
    except OSError as error:
        raise unwritable(path, error, elsewhere) from error


def require_owner_only(what: str, path: Path, mode: int, error: type[PaletteError] = OutputError) -> None:
    """Returns nothing: nobody but its owner may read a secret's file, whose mode that is.

    Raises:
        PaletteError: of the class ``error``, if somebody may.
    """
    if os.name == "posix" and mode & 0o077:
        raise error(
            f"{what} must be readable by its owner alone",
            got=f"mode {mode & 0o777:03o}",
            remedy=f"chmod 600 {path}",
            where=path,
        )


def unwritable(path: Path, error: OSError, elsewhere: str = ELSEWHERE) -> OutputError:
    """What to say if the disk, or whoever may write there, cannot take ``path``."""
    helps = ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        helps = "make its folder writable, or "
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        helps = "free space or "
    return OutputError(
        "an output file must be writable",
        got=error.strerror or str(error),
        remedy=f"{helps}{elsewhere}; nothing was half-written",
        where=path,
    )


def write_text(path: Path, text: str, elsewhere: str = ELSEWHERE) -> None:
    """Writes ``text`` as UTF-8, atomically.

    Raises:
        OutputError: if the disk cannot take the file; it says how to write ``elsewhere``.
    """
    with atomic(path, elsewhere) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, elsewhere: str = ELSEWHERE) -> None:
    """Writes ``value`` as indented JSON in the order given, atomically; NaN is refused.

    Raises:
        OutputError: if the disk cannot take the file; it says how to write ``elsewhere``.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", elsewhere)


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OutputError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (ValueError, OSError) as error:
        raise OutputError(
            "an artefact must be valid JSON",
            got=error,
            remedy="delete it and run its stage again",
            where=path,
        ) from error


def stated_in(path: Path) -> dict[str, Any]:
    """What the object of a JSON file says; nothing where there is none, or none that can be read."""
    try:
        content = read_json(path)
    except (OutputError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], card: object) -> None:
    """Writes tensors with their card in the safetensors header, atomically; the same bytes each time.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    from safetensors.torch import save

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    metadata = {"format": "pt", CARD_KEY: canonical(card)}
    data = sorted_header(save(ordered, metadata=metadata))
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def framed(header: bytes) -> bytes:
    """A safetensors header with its length before it, padded to a multiple of 8 bytes."""
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its header keys sorted.

    safetensors writes metadata in the order of a randomised hash map, so the same tensors would give
    other bytes in every process.
    """
    length = int.from_bytes(data[:8], "little")
    return framed(canonical(json.loads(data[8 : 8 + length])).encode()) + data[8 + length :]


def _missing(path: Path) -> OutputError:
    return OutputError("an artefact must exist", got="no such file", remedy="run its stage first", where=path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors of an artefact and its card.

    Raises:
        OutputError: if the file is missing, damaged, or has no card of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            card = json.loads((handle.metadata() or {})[CARD_KEY])
            return {name: handle.get_tensor(name) for name in sorted(handle.keys())}, card
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise OutputError(
            "an artefact must be a safetensors file with Palette's card",
            got=error,
            remedy="delete it and run its stage again",
            where=path,
        ) from error


def claim(folder: Path, owner: Mapping[str, Any]) -> None:
    """Takes ``folder`` for ``owner``: new, empty, or already this owner's.

    Raises:
        OutputError: if the folder holds files of something else, or cannot be made.
    """
    if not require_free(folder, owner):
        write_json(folder / MARKER, dict(owner))


def require_free(folder: Path, owner: Mapping[str, Any]) -> bool:
    """Whether ``folder`` is this owner's already; if not, it is new or empty.

    Raises:
        OutputError: if it holds files of something else.
    """
    path = folder / MARKER
    if path.is_file():
        owner_now = read_json(path)
        if owner_now == dict(owner):
            return True
        raise OutputError(
            "an output folder serves one recipe",
            got=f"a folder of {owner_name(owner_now)}",
            remedy="choose another with --output, or delete it",
            where=folder,
        )
    if folder.exists() and (not folder.is_dir() or {each.name for each in folder.iterdir()} - {LOCK, LOG}):
        raise OutputError(
            "an output folder must be new, empty or this recipe's own",
            got="files of something else",
            remedy="choose another with --output",
            where=folder,
        )
    return False


def owner_name(owner: object) -> str:
    """A short name for whoever holds a folder, for an error message."""
    if isinstance(owner, Mapping):
        return ", ".join(f"{key} {str(value)[:24]}" for key, value in owner.items())
    return str(owner)[:48]
