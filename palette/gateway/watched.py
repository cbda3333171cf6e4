"""What a file says now: read again whenever it is another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """The content of a file, for threads that ask for it before every decision."""

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self._path, self._read = path, read
        self._known: tuple[tuple[int, int, int], T] | None = None
        self._lock = Lock()

    def __call__(self) -> T:
        """What the file says now; it raises what reading it raises, and an OSError where it is gone."""
        with self._lock:
            found = self._path.stat()
            identity = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._known is None or self._known[0] != identity:
                self._known = None
                self._known = (identity, self._read(self._path))
            return self._known[1]
