"""Where a study is kept: a journal that one run at a time owns, a database, or a proxy of one."""

from __future__ import annotations

import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from palette.errors import SearchError, first_line
from palette.search.settings import shown

GRPC = "grpc://"
ATTEMPTS = 5
"""How often a database is opened: of machines that start together, only one can make its tables."""


class _OwnedJournal(JournalFileBackend):
    """A journal that the process has all to itself: nothing is locked, and a trial is synced once.

    Optuna syncs each of the twenty entries of a trial, for longer than a small backbone is scored. What a
    killed process wrote is kept without it; of what the machine takes with it, the last trial is drawn again.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with open(self._file_path, "ab") as file:
            file.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())
            if any("state" in log for log in logs):
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def opened_storage(place: Path | str) -> Iterator[BaseStorage]:
    """The storage at a journal's path, a database's URL or a ``grpc://host:port`` proxy.

    A journal is this block's alone. The operating system drops that lock when its holder is killed, so
    that no run waits for a ghost. Under it nobody writes, so a last line without its end, which a kill
    or a full disk leaves, is cut off before another would be glued to it.
    """
    if isinstance(place, str):
        yield _storage(place)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SearchError(
                "one run at a time works on a study",
                got="another that is running",
                remedy="wait for it to end",
                where=place,
            ) from error
        yield _storage(place)


def unreadable(place: Path | str, error: Exception) -> SearchError:
    """The error of a storage that cannot be opened or read."""
    return SearchError(
        "a study's storage must be a readable journal, a database's URL or grpc://host:port",
        got=first_line(error),
        remedy="delete a damaged journal to search again, or mend search.storage",
        where=shown(place),
    )


@contextmanager
def without_novelty() -> Iterator[None]:
    """A block in which Optuna does not warn that a feature is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _storage(place: Path | str) -> BaseStorage:
    try:
        if isinstance(place, Path):
            content = place.read_bytes() if place.is_file() else b"\n"
            if not content.endswith(b"\n"):
                os.truncate(place, content.rfind(b"\n") + 1)
            return JournalStorage(_OwnedJournal(str(place)))
        if place.startswith(GRPC):
            host, _, port = place.removeprefix(GRPC).partition(":")
            with without_novelty():
                return optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
        return _database(place)
    except Exception as error:  # Every driver has errors of its own.
        raise unreadable(place, error) from error


def _database(url: str) -> RDBStorage:
    # A machine waits this long for another's transaction; SQLite's own five seconds are short on a slow disk.
    patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for _ in range(ATTEMPTS - 1):
        try:
            return RDBStorage(url, engine_kwargs=patient)
        except SQLAlchemyError:
            time.sleep(0.2)
    return RDBStorage(url, engine_kwargs=patient)
