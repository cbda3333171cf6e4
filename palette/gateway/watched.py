"""What files say now: read again whenever they are others.

Where the last one that held is to stay until another holds, what is wrong with the new one is kept, logged
once, and told by ``/metrics``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from palette.errors import GatewayError, PaletteError

LOGGER = logging.getLogger("palette.gateway")
T = TypeVar("T")
Identity = tuple[tuple[str, int, int, int], ...]


def identity(path: Path) -> Identity:
    """What tells a file from the one that was there before, or the files in a folder.

    Raises:
        OSError: if it is not there.
    """
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    stats = [(each.name, each.stat()) for each in files]
    return tuple((name, found.st_mtime_ns, found.st_size, found.st_ino) for name, found in stats)


class Watched(Generic[T]):
    """The content of a file or a folder, for threads that ask for it before every decision."""

    def __init__(self, path: Path, read: Callable[[Path], T], *, lasting: bool = False) -> None:
        """``lasting`` keeps what was read before where what is there now does not hold."""
        self._path, self._read, self._lasting = path, read, lasting
        self._known: tuple[Identity, T] | None = None
        self._lock = Lock()
        self._wrong: tuple[Identity, str] | None = None

    def __call__(self) -> T:
        """What the file says now; it raises what reading it raises, and an OSError where it is gone."""
        with self._lock:
            found: Identity = ()
            try:
                found = self._identity()
                if self._known is None or self._known[0] != found:
                    if self._known is not None and self._wrong is not None and self._wrong[0] == found:
                        return self._known[1]
                    self._known = (found, self._read(self._path))
                self._wrong = None
            except (PaletteError, OSError) as error:
                if not self._lasting or self._known is None:
                    self._known = None
                    raise
                self._note(found, error)
            return self._known[1]

    def _identity(self) -> Identity:
        try:
            return identity(self._path)
        except OSError:
            if self._lasting and self._known is None:
                # Whoever reads it says better what is missing.
                self._read(self._path)
            raise

    @property
    def fault(self) -> str | None:
        """What is wrong with the file that is there now, where an earlier one still holds."""
        return self._wrong[1] if self._wrong else None

    def refuse(self, error: PaletteError) -> None:
        """Notes that what was read is not taken, by whoever it was read for."""
        with self._lock:
            assert self._known is not None
            self._note(self._known[0], error)

    def _note(self, found: Identity, error: Exception) -> None:
        if self._wrong is None or self._wrong[0] != found:
            LOGGER.error("%s is not taken, and what it said before stays: %s", self._path.name, error)
        self._wrong = (found, str(error))


class Shelf(Generic[T]):
    """What folders hold, each as it was taken last."""

    def __init__(self, folders: Sequence[Path], read: Callable[[Path], T]) -> None:
        """Reads all of them; it raises what reading one raises."""
        self._watched = [Watched(folder, read, lasting=True) for folder in folders]
        self._taken = [each() for each in self._watched]

    @property
    def taken(self) -> list[T]:
        """What each folder held when it was taken last."""
        return list(self._taken)

    def changed(self) -> Iterator[tuple[int, T]]:
        """What folders hold that was not taken yet, by their numbers."""
        for number, each in enumerate(self._watched):
            found = each()
            if found is not self._taken[number] and each.fault is None:
                yield number, found

    def take(self, number: int, found: T) -> None:
        """Takes what a folder holds."""
        self._taken[number] = found

    def refuse(self, number: int, error: GatewayError) -> None:
        """Notes that what a folder holds is not taken until it is another."""
        self._watched[number].refuse(error)

    @property
    def faults(self) -> list[str]:
        """What is wrong with what folders hold."""
        return [each.fault for each in self._watched if each.fault is not None]
