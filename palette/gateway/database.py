"""The database of a store: SQLite in a file, or PostgreSQL by its URL; opened, brought up to date, locked.

Who writes holds the one lock from the beginning of the transaction on, so that the ledger's entries of all
threads and processes are one chain.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import local

from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from palette.errors import StoreError

STORE, DATA = "PALETTE_STORE", "PALETTE_DATA"
"""The environment variables that name another store than the user's usual one, and another folder of data."""
REVISION = "0002"
"""The last of the migrations."""
MIGRATIONS = Path(__file__).with_name("migrations")
WAIT = 30
"""Seconds that a writer waits for another one, and a statement for its end."""
CONNECT = 5
"""Seconds until a server that does not answer is given up."""
POOL = {"pool_size": 8, "max_overflow": 24}
"""Connections that are kept, and more that may be opened; a server allows a hundred or so."""
LOCK = 0x70616C65747465
"""The advisory lock of PostgreSQL that every writer holds."""
REMEDIES = {
    "SQLITE_FULL": "free space on its disk",
    "SQLITE_NOTADB": "name another file, or restore a copy",
    "SQLITE_CORRUPT": "restore a copy, and check its ledger against a signed head",
    "SQLITE_BUSY": "end the process that holds it",
    "SQLITE_READONLY": "make the file and its folder writable",
    "SQLITE_CANTOPEN": "make the file and its folder readable and writable",
}
"""What helps, by SQLite's name of what is wrong."""


def data_folder() -> Path:
    """Where the user's data are kept: in ``PALETTE_DATA``, or where the user's data usually are."""
    usual = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "palette"
    return Path(os.environ.get(DATA) or usual)


def store_url(named: str | None = None) -> str:
    """The URL or file of the store: as it is named, as ``PALETTE_STORE`` says, or the user's usual one."""
    return named or os.environ.get(STORE) or str(data_folder() / "tenants.db")


class Database:
    """A database that is open; nothing is read or written but in a ``with`` of one of its two methods."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Opens it and brings it up to date; ``create`` makes what is not there.

        Raises:
            StoreError: if it is not there, is out of reach, is damaged, or is newer than this version.
        """
        self.path, located = _located(url)
        self._moment = local()
        self.shown = str(self.path or located.render_as_string(hide_password=True))
        if self.path is not None and not self.path.exists():
            if not create:
                raise self._absent()
            _make(self.path)
        if self.path is None:
            options = f"-c statement_timeout={WAIT}s -c lock_timeout={WAIT}s"
            given = {"connect_timeout": CONNECT, "options": options}
            self._engine = create_engine(
                located, hide_parameters=True, pool_pre_ping=True, connect_args=given, **POOL
            )
        else:
            self._engine = create_engine(
                located, hide_parameters=True, connect_args={"check_same_thread": False}, **POOL
            )
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._bring_up_to_date(create)
        except StoreError:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the store at one moment, which is that of the block around it, if any.

        Raises:
            StoreError: if the database cannot be read.
        """
        if (around := getattr(self._moment, "connection", None)) is not None:
            yield around
            return
        with self._told(), self._engine.connect() as bare:
            connection = bare if self.path else bare.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                self._moment.connection = connection
                try:
                    yield connection
                finally:
                    self._moment.connection = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that alone may write, until the block ends: then all of it is on the disk, or none.

        Raises:
            StoreError: if the database cannot be written.
        """
        with self._told(), self._engine.connect() as bare:
            connection = bare.execution_options(palette_writes=True)
            with connection.begin():
                if self.path is None:
                    connection.execute(text("SET LOCAL synchronous_commit TO on"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                yield connection

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def _bring_up_to_date(self, create: bool) -> None:
        with self.reading() as connection:
            found = _revision(connection)
        if found is None and not create:
            raise self._absent()
        if found == REVISION:
            return
        with self.writing() as connection:
            # Of several processes that start at once, one migrates.
            if (found := _revision(connection)) not in (None, *_revisions()):
                raise StoreError(
                    "a store must not be newer than this version of Palette",
                    got=f"revision {ascii(found)[:20]}",
                    remedy="install a newer one",
                    where=self.shown,
                )
            if found != REVISION:
                _migrate(connection)

    def _absent(self) -> StoreError:
        return StoreError(
            "a store must have been made",
            got="none",
            remedy="palette tenant init makes one",
            where=self.shown,
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            # What SQLAlchemy says holds the statement; what the database says is one sentence.
            cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
            kind = getattr(cause, "sqlite_errorname", "") or ""
            remedy = next((REMEDIES[name] for name in REMEDIES if kind.startswith(name)), None)
            raise StoreError(
                "a store must be a database that can be read and written",
                got=(str(cause).splitlines() or [type(cause).__name__])[0],
                remedy=remedy or (None if self.path else "check that its server runs and lets you in"),
                where=self.shown,
            ) from error


def _located(url: str) -> tuple[Path | None, URL]:
    """The file of a URL or a path, None where it is a server's, and the URL for SQLAlchemy."""
    try:
        found = make_url(url) if "://" in url else URL.create("sqlite", database=url)
        backend = found.get_backend_name()
    except (ArgumentError, ValueError):
        # What it says quotes the URL, in which a password may stand.
        backend = "another"
    if backend == "sqlite" and found.database not in (None, "", ":memory:"):
        path = Path(str(found.database)).expanduser().absolute()
        return path, URL.create("sqlite", database=str(path))
    if backend not in ("postgresql", "postgres"):
        raise StoreError(
            "a store must be a file of SQLite or a database of PostgreSQL",
            got="another URL",
            remedy="name it as sqlite:///FILE or postgresql://USER@HOST/NAME",
        )
    if find_spec("psycopg") is None:
        raise StoreError(
            "a store in PostgreSQL needs the package psycopg",
            got="none",
            remedy="pip install 'palette-llm[postgres]'",
        )
    return None, found.set(drivername="postgresql+psycopg")


def _make(path: Path) -> None:
    """An empty file that its owner alone can read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreError("a store's file must be writable", got=error.strerror, where=path) from error


def _prepare_sqlite(connection: DBAPIConnection, record: object) -> None:
    # Transactions are begun below, since Python's driver would begin them only at the first change.
    connection.isolation_level = None
    # Damaged text is to be found, not to stop whoever looks for damage.
    connection.text_factory = lambda found: found.decode(errors="replace")
    for setting in (
        f"busy_timeout = {WAIT * 1000}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("palette_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _revisions() -> list[str]:
    return [path.stem[1:5] for path in (MIGRATIONS / "versions").glob("v*.py")]


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
