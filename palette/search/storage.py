"""Where a study lives: a journal on disk that survives a kill, or one of Optuna's own storages."""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from sqlalchemy.exc import SQLAlchemyError

from palette.errors import SearchError
from palette.search.settings import shown

GRPC = "grpc://"
ATTEMPTS = 5
"""How often a database is opened: of workers that start together, only one can make its tables."""


class ProcessLock(BaseJournalFileLock):
    """A lock that the operating system drops when its holder is killed, so that no run waits for a ghost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None

    def acquire(self) -> bool:
        """True, once the lock is held."""
        return self.taken(wait=True)

    def taken(self, *, wait: bool) -> bool:
        """Whether the lock is held by us now; without ``wait`` it is not waited for."""
        stream = self._path.open("ab")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            stream.close()
            return False
        self._stream = stream
        return True

    def release(self) -> None:
        """Drops the lock."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class JournalLock(ProcessLock):
    """The lock under which a journal is written; whoever takes it finds whole lines only.

    A writer that is killed, or whose disk is full, leaves a line without its end, and the next line
    of another worker would be glued to it. Under the lock nobody writes, so such an end is cut off.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_suffix(".lock"))
        self._journal = journal

    def acquire(self) -> bool:
        """True, once the lock is held."""
        held = super().acquire()
        if self._journal.is_file():
            _drop_torn_line(self._journal)
        return held


def worker_lock(journal: Path, worker: int) -> ProcessLock:
    """The lock that a worker holds while it is alive."""
    return ProcessLock(journal.with_name(f"{journal.name}.worker-{worker}.lock"))


def turn_lock(journal: Path) -> ProcessLock:
    """The lock under which a worker looks at the study and then asks or tells."""
    return ProcessLock(journal.with_name(f"{journal.name}.turn.lock"))


def open_storage(place: Path | str) -> BaseStorage:
    """The storage at a journal's path, a database's URL or a ``grpc://host:port`` proxy.

    Raises:
        SearchError: if it cannot be opened.
    """
    try:
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(place), lock_obj=JournalLock(place)))
        if place.startswith(GRPC):
            host, _, port = place.removeprefix(GRPC).partition(":")
            with without_novelty():
                return optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
        return _database(place)
    except Exception as error:  # Every driver has errors of its own.
        raise unreadable(place, error) from error


def unreadable(place: Path | str, error: Exception) -> SearchError:
    """The error of a storage that cannot be opened or read."""
    first = (str(error).splitlines() or [""])[0]
    return SearchError(
        "a study's storage must be a readable journal, a database's URL or grpc://host:port",
        got=f"{type(error).__name__}: {first}",
        remedy="delete a damaged journal to search again, or mend search.storage",
        where=shown(place),
    )


@contextmanager
def without_novelty() -> Iterator[None]:
    """A block in which Optuna does not warn that a feature is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _database(url: str) -> RDBStorage:
    # A worker waits this long for another's transaction; SQLite's own five seconds are short on a slow disk.
    patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for _ in range(ATTEMPTS - 1):
        try:
            return RDBStorage(url, engine_kwargs=patient)
        except SQLAlchemyError:
            time.sleep(0.2)
    return RDBStorage(url, engine_kwargs=patient)


def _drop_torn_line(journal: Path) -> None:
    """Cuts a last line without its end; whole lines stay."""
    with journal.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return
        stream.seek(size - 1)
        if stream.read(1) != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
