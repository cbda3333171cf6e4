"""The writer of a ledger: what many threads append at once is one transaction, and is then on the disk."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self

from palette.errors import PaletteError, StoreError
from palette.files import write_text
from palette.gateway.database import Database
from palette.gateway.entries import append, end, sign_head
from palette.gateway.ledger import Event, Head, read_head
from palette.signing import Envelope, KeyRing, PrivateKey
from palette.signing.instants import now
from palette.working import LOGGER

GROUP = 512
"""Entries of one transaction at most."""


@dataclass(frozen=True)
class Heads:
    """How the end of a ledger is signed: by which key, into which file, and how often.

    ``every`` is a number of entries, ``seconds`` the time after which a shorter end is signed too.
    """

    key: PrivateKey
    file: Path | None = None
    every: int = 256
    seconds: float = 60.0


def head_of(path: Path, ring: KeyRing) -> Head:
    """The signed head of a file.

    Raises:
        StoreError: if the file cannot be read.
        SignatureError: if the head does not hold.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(
            "a signed head must be a readable file",
            got=error.strerror,
            remedy="palette ledger head --key KEY -o FILE writes one",
            where=path,
        ) from error
    return read_head(Envelope.read(text), ring)


class LedgerWriter:
    """Appends from any thread; an entry is durable before its hash is told.

    It remembers the last entry that it wrote. Where that one is there no more, or what others have written
    since does not follow it, nothing is appended: whoever asks is told, and must not go on.
    """

    def __init__(
        self,
        database: Database,
        heads: Heads | None = None,
        after: tuple[int, str] | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """``after`` is an entry that is known, such as that of a signed head; the end must follow from it.

        Raises:
            StoreError: if it does not.
        """
        self._database, self._heads, self._clock = database, heads, clock
        self._queue: queue.SimpleQueue[tuple[dict[str, Any], Future[str]] | None] = queue.SimpleQueue()
        self._lock, self._closed = Lock(), False
        self._unsigned, self._signed_at = 0, time.monotonic()
        with database.writing() as connection:
            append(connection, [], clock(), after)
            self._last = end(connection)
        self._thread = Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, event: Event) -> str:
        """The hash (hex) of the event's entry, which is durable before this returns.

        Raises:
            StoreError: if it could not be written, or the ledger is not what was written to it.
        """
        return self.submit(event).result()

    def submit(self, event: Event) -> Future[str]:
        """The hash to come of the event's entry, for who waits otherwise.

        Raises:
            StoreError: if the event is none that a ledger keeps, or the writer was closed.
        """
        content, future = event.to_json(), Future[str]()
        # Whoever waits may go away; the entry is written all the same.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise StoreError("a ledger's writer must be open to be written to", got="a closed one")
            self._queue.put((content, future))
        return future

    def close(self) -> None:
        """Returns once all that was submitted is written, and the end is signed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch, over = self._next()
            if batch:
                self._write(batch)
            if over or self._is_due():
                self._sign()
            if over:
                return

    def _next(self) -> tuple[list[tuple[dict[str, Any], Future[str]]], bool]:
        """What waits to be written, once something does, or a head is due; and whether it is the last."""
        batch: list[tuple[dict[str, Any], Future[str]]] = []
        with suppress(queue.Empty):
            item = self._queue.get(timeout=self._patience())
            while item is not None:
                batch.append(item)
                if len(batch) == GROUP:
                    return batch, False
                item = self._queue.get_nowait()
            return batch, True
        return batch, False

    def _patience(self) -> float | None:
        if self._heads is None or not self._unsigned:
            return None
        return max(0.0, self._signed_at + self._heads.seconds - time.monotonic())

    def _is_due(self) -> bool:
        if self._heads is None or not self._unsigned:
            return False
        return self._unsigned >= self._heads.every or self._patience() == 0

    def _write(self, batch: list[tuple[dict[str, Any], Future[str]]]) -> None:
        try:
            with self._database.writing() as connection:
                made = append(connection, [content for content, _ in batch], self._clock(), self._last)
        except BaseException as error:  # whoever waits must be told, whatever it is
            for _, future in batch:
                future.set_exception(error)
            return
        self._last = (made[-1].sequence, made[-1].hash)
        self._unsigned += len(made)
        for (_, future), each in zip(batch, made, strict=True):
            future.set_result(each.hash)

    def _sign(self) -> None:
        """Signs the end; that it cannot is said and tried again, since the entries themselves are written."""
        self._signed_at = time.monotonic()
        if self._heads is None or not self._unsigned:
            return
        try:
            with self._database.writing() as connection:
                append(connection, [], self._clock(), self._last)
                _, envelope = sign_head(connection, self._heads.key, self._clock())
            if self._heads.file is not None:
                write_text(self._heads.file, envelope.text + "\n")
        except PaletteError as error:
            LOGGER.warning("the head of the ledger could not be signed: %s", error)
            return
        self._unsigned = 0
