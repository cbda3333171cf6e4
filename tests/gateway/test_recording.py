"""The writer: one chain whoever writes, durable before it is told, never upon a chain that was changed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, text, update

from palette.errors import StoreError
from palette.gateway import entries, recording
from palette.gateway.auditing import audit
from palette.gateway.entries import read
from palette.gateway.ledger import NOTHING, Entry, Event, entry, faults, read_head
from palette.gateway.recording import Heads, head_of
from palette.gateway.store import Store
from palette.gateway.tables import ENTRIES
from palette.signing import Envelope
from tests.gateway.signers import BEGIN, Opens, Signers

DECISION = Event("decision", tenant="hospital", reason="allowed", status=200)
WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from palette.gateway.database import Database
from palette.gateway.ledger import Event
from palette.gateway.recording import LedgerWriter

url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock = Lock()

def append(number):
    found = writer.append(Event("decision", request=f"{name}-{number}"))
    with lock:
        print(found, flush=True)

with LedgerWriter(Database(url)) as writer, ThreadPoolExecutor(4) as pool:
    list(pool.map(append, range(count)))
"""


def kept(store: Store) -> dict[str, str | None]:
    """What was asked by the hash of its entry, of a chain that holds."""
    with store.database.reading() as connection:
        found = list(read(connection))
    assert faults(found) == []
    return {one.hash: one.content["event"].get("request") for one in found}


def writing(url: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_told_is_there(any_store: Store) -> None:
    with any_store.writer() as writer:
        hashes = [writer.append(replace(DECISION, request=str(number))) for number in range(5)]
    found = kept(any_store)
    assert [found[each] for each in hashes] == ["0", "1", "2", "3", "4"]


def test_many_threads_keep_one_chain(any_store: Store) -> None:
    with any_store.writer() as writer, ThreadPoolExecutor(16) as pool:
        hashes = list(pool.map(lambda n: writer.append(replace(DECISION, request=str(n))), range(200)))
    found = kept(any_store)
    assert [found[each] for each in hashes] == [str(number) for number in range(200)]
    assert len(found) == 201


def test_several_writers_of_several_processes_keep_one_chain(any_store: Store, any_url: str) -> None:
    others = [writing(any_url, name, 60) for name in ("a", "b")]
    with any_store.writer() as writer:
        own = {writer.append(replace(DECISION, request=f"own-{number}")) for number in range(60)}
        told = {line for other in others for line in (other.communicate(timeout=60)[0]).split()}
    assert [other.returncode for other in others] == [0, 0]
    found = kept(any_store)
    assert own | told == found.keys() - {next(iter(found))}
    assert len(found) == 181


def unlocked(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Takes away what keeps two writers apart."""
    begins = lambda connection: connection.exec_driver_sql("BEGIN")  # noqa: E731
    engine = store.database._engine
    from palette.gateway import database

    event.remove(engine, "begin", database._begin_sqlite)
    event.listen(engine, "begin", begins)


def test_without_the_lock_entries_would_be_refused_or_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked(monkeypatch, store)
    never, real = Flag(), entries._followed

    def slow(connection: Connection, after: tuple[int, str]) -> tuple[int, str]:
        found = real(connection, after)
        never.wait(0.2)
        return found

    writers = [store.writer(), store.writer()]
    monkeypatch.setattr(entries, "_followed", slow)
    futures = [writer.submit(DECISION) for writer in writers]
    errors = [future.exception(timeout=10) for future in futures]
    for writer in writers:
        writer.close()
    assert any(isinstance(error, StoreError) for error in errors)


@pytest.mark.parametrize("wait", [0.0, 0.02, 0.1])
def test_killed_in_the_midst_it_has_lost_nothing_that_it_told(
    any_store: Store, any_url: str, wait: float
) -> None:
    with writing(any_url, "killed", 100_000) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip()]
        time.sleep(wait)
        process.kill()
        told += process.stdout.read().split("\n")
    assert process.returncode == -signal.SIGKILL
    # The last line may be cut in two.
    whole = {line for line in told if len(line) == len(NOTHING)}
    assert whole
    assert whole <= kept(any_store).keys()
    with any_store.writer() as writer:
        assert writer.append(DECISION) in kept(any_store)


def test_what_waits_together_is_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(connection: Connection, events: Sequence[Any], *rest: Any) -> list[Entry]:
        sizes.append(len(events))
        return entries.append(connection, events, *rest)

    monkeypatch.setattr(recording, "append", counted)
    with store.writer() as writer:
        with store.database.writing():
            futures = [writer.submit(DECISION) for _ in range(30)]
        hashes = {future.result() for future in futures}
    assert len(hashes) == 30
    assert len([size for size in sizes if size]) <= 2


def test_heads_are_signed_every_so_often_and_at_the_end(
    any_store: Store, signers: Signers, tmp_path: Path
) -> None:
    file = tmp_path / "elsewhere" / "head.json"
    with any_store.writer(Heads(signers.ledger, file, every=3)) as writer:
        for _ in range(3):
            writer.append(DECISION)
        end = time.monotonic() + 10
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert head_of(file, signers.ring).sequence == 4
        writer.append(DECISION)
    assert read_head(Envelope.read(file.read_text()), signers.ring).sequence == 5
    found = audit(any_store, [file])
    assert (found["holds"], found["signed_to"], found["heads"]) == (True, 5, 3)


def test_a_head_is_signed_after_a_time_too(store: Store, signers: Signers, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    with store.writer(Heads(signers.ledger, file, every=1000, seconds=0.05)) as writer:
        writer.append(DECISION)
        end = time.monotonic() + 10
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert head_of(file, signers.ring).sequence == 2


def test_a_head_that_cannot_be_written_stops_no_entry(
    store: Store, signers: Signers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with store.writer(Heads(signers.ledger, tmp_path / "file" / "head.json", every=1)) as writer:
        for _ in range(3):
            writer.append(DECISION)
    assert len(kept(store)) == 4
    assert "could not be signed" in caplog.text


Changes = Callable[[Store], None]


def cut(store: Store) -> None:
    with store.database.writing() as connection:
        connection.execute(delete(ENTRIES).where(ENTRIES.c.sequence > 2))


def edit(store: Store) -> None:
    with store.database.writing() as connection:
        connection.execute(update(ENTRIES).where(ENTRIES.c.sequence == 3).values(hash=NOTHING))


def add(store: Store) -> None:
    made = entry(4, NOTHING, BEGIN, {"kind": "decision"})
    with store.database.writing() as connection:
        connection.execute(ENTRIES.insert(), vars(made))


@pytest.mark.parametrize("change", [cut, edit, add])
def test_nothing_is_appended_to_what_was_changed(store: Store, change: Changes) -> None:
    with store.writer() as writer:
        for _ in range(2):
            writer.append(DECISION)
        change(store)
        for _ in range(2):
            with pytest.raises(StoreError, match="must hold what was written to it, got entry"):
                writer.append(DECISION)


@pytest.mark.parametrize("change", [cut, edit, add])
def test_a_writer_does_not_begin_upon_what_does_not_follow_its_head(
    store: Store, signers: Signers, change: Changes, tmp_path: Path
) -> None:
    file = tmp_path / "head.json"
    with store.writer(Heads(signers.ledger, file)) as writer:
        for _ in range(2):
            writer.append(DECISION)
    change(store)
    with pytest.raises(StoreError, match="must hold what was written to it"):
        store.writer()
    with store.database.writing() as connection:
        connection.execute(text("DELETE FROM ledger_heads"))
    with pytest.raises(StoreError, match="must hold what was written to it"):
        store.writer(Heads(signers.ledger, file))


def test_what_others_append_is_followed(store: Store, opens: Opens, url: str) -> None:
    with store.writer() as one, opens(url).writer() as other:
        for _ in range(3):
            one.append(DECISION)
            other.append(DECISION)
    assert len(kept(store)) == 7


def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room(store: Store) -> None:
    limit = {"pages": 0}

    def limited(connection: object, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit['pages'] or 1_000_000}")  # type: ignore[attr-defined]

    event.listen(store.database._engine, "checkout", limited)
    long = replace(DECISION, remarks={str(number): "x" * 200 for number in range(16)})
    with store.writer() as writer:
        told = [writer.append(long)]
        limit["pages"] = 1
        with pytest.raises(StoreError, match="got database or disk is full; free space on its disk"):
            for _ in range(9):
                told.append(writer.append(long))
        limit["pages"] = 0
        told.append(writer.append(long))
    assert kept(store).keys() >= set(told)


def test_whatever_goes_wrong_is_told_to_who_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with store.writer() as writer:
        with monkeypatch.context() as patched:
            patched.setattr(recording, "append", broken)
            with pytest.raises(RuntimeError, match="a bug"):
                writer.append(DECISION)
        assert writer.append(DECISION) in kept(store)


def test_who_goes_away_takes_no_entry_with_it(store: Store) -> None:
    with store.writer() as writer:
        future = writer.submit(DECISION)
        assert not future.cancel()
    assert future.result() in kept(store)


def test_a_closed_writer_says_so(store: Store) -> None:
    writer = store.writer()
    writer.close()
    writer.close()
    with pytest.raises(StoreError, match="must be open"):
        writer.append(DECISION)


def test_a_bad_event_is_told_before_it_is_queued(store: Store) -> None:
    with store.writer() as writer, pytest.raises(StoreError, match="texts and whole numbers"):
        writer.append(Event("decision", remarks={"share": 0.5}))
    assert len(kept(store)) == 1
