"""A server of PostgreSQL of the tests' own, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = 20.0
"""Seconds until a server must have started."""


def binary(name: str) -> str | None:
    """A program of PostgreSQL's server, where there is one."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


@contextmanager
def running(initdb: str, postgres: str) -> Iterator[Path]:
    """The folder of the socket of a server, which runs as long as the block."""
    # It refuses to run as root, and its socket's path must be short.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="palette-pg-"))

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        silent = subprocess.DEVNULL
        return subprocess.Popen(arguments, user=user, cwd=folder, stdout=silent, stderr=silent)

    try:
        if user is not None:
            shutil.chown(folder, user)
        data = str(folder / "data")
        assert start(initdb, "-D", data, "-U", "palette", "-A", "trust", "--no-sync").wait(60) == 0
        process = start(postgres, "-D", data, "-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder))
        try:
            await_server(folder)
            yield folder
        finally:
            # Nothing of it is kept, so that it need not write what it holds.
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=SERVER)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def await_server(folder: Path) -> None:
    import psycopg

    end = time.monotonic() + SERVER
    while True:
        try:
            psycopg.connect(host=str(folder), user="palette", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
