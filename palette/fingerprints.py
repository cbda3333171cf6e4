"""Identity of values and files, SHA-256 over canonical content; and of libraries, their versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def canonical(value: object) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, ASCII only, no NaN.

    Raises:
        ValueError: if ``value`` holds NaN or an infinity.
        TypeError: if ``value`` holds something JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: object) -> str:
    """The SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def fingerprint_file(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of Palette, of Python, and of those libraries that are installed."""
    installed = {"palette": version("palette-llm"), "python": platform.python_version()}
    for name in libraries:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def fingerprint_folder(folder: Path, pattern: str = "*") -> str:
    """The SHA-256 (hex) of the names and bytes of a folder's files that match ``pattern``."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return fingerprint([[path.name, fingerprint_file(path)] for path in files])
