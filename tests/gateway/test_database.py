"""The database: brought up to date from any of its revisions; one sentence where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, text

from palette.errors import StoreError
from palette.gateway import database
from palette.gateway.database import MIGRATIONS, REVISION, Database
from palette.gateway.entries import read
from palette.gateway.ledger import faults
from palette.gateway.tables import METADATA


def test_the_tables_are_what_the_migrations_leave(any_url: str) -> None:
    opened = Database(any_url, create=True)
    with opened.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == REVISION
        assert len(list(read(connection))) == 1
    opened.close()


def test_the_last_revision_is_the_one_that_is_named() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [REVISION]
    assert sorted(database._revisions()) == sorted(each.revision for each in script.walk_revisions())


def test_an_older_store_is_brought_up_to_date_at_its_opening(any_url: str) -> None:
    made = make_url(any_url)
    made = made if made.get_backend_name() == "sqlite" else made.set(drivername="postgresql+psycopg")
    engine = create_engine(made)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        row = "INSERT INTO tenants VALUES ('hospital', 'St. Ann', '2026-01-01T00:00:00Z', NULL)"
        connection.execute(text(row))
    engine.dispose()
    opened = Database(any_url)
    with opened.reading() as connection:
        assert connection.execute(text("SELECT name FROM tenants")).scalar() == "St. Ann"
        assert faults(read(connection)) == []
    opened.close()


def test_a_newer_store_is_left_alone(any_url: str) -> None:
    opened = Database(any_url, create=True)
    with opened.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    opened.close()
    with pytest.raises(StoreError, match=r"must not be newer than this version .* got revision '0099'"):
        Database(any_url, create=True)


def test_what_a_store_of_sqlite_is_set_to(url: str) -> None:
    opened = Database(url, create=True)
    with opened.reading() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
    opened.close()
    assert Path(str(make_url(url).database)).stat().st_mode & 0o777 == 0o600


def test_a_commit_is_durable_on_a_server(postgres_url: str) -> None:
    opened = Database(postgres_url, create=True)
    with opened.writing() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
        # Of two writers one waits.
        locks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        assert connection.execute(locks).scalar() == 1
    opened.close()


def test_what_fails_in_the_midst_leaves_nothing(any_url: str) -> None:
    opened = Database(any_url, create=True)
    with pytest.raises(RuntimeError), opened.writing() as connection:
        connection.execute(text("DELETE FROM ledger_entries"))
        raise RuntimeError
    with opened.reading() as connection:
        assert len(list(read(connection))) == 1
    opened.close()


@pytest.mark.parametrize("create", [False, True])
def test_another_file_is_no_store(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "tenants.db"
    path.write_bytes(b"not a database, and long enough to be looked at" * 50)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="got file is not a database; name another file, or restore") as told:
        Database(str(path), create=create)
    assert str(path) in str(told.value)
    assert path.read_bytes() == before


def test_a_damaged_file_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tenants.db"
    opened = Database(str(path), create=True)
    with opened.writing() as connection:
        rows = [{"n": number, "b": "x" * 3000} for number in range(2, 40)]
        connection.execute(text("INSERT INTO ledger_entries VALUES (:n, '', :b)"), rows)
    opened.close()
    content = bytearray(path.read_bytes())
    content[-60_000:] = b"\xff" * 60_000
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="malformed; restore a copy, and check its ledger"):
        opened = Database(str(path))
        try:
            with opened.reading() as connection:
                list(read(connection))
        finally:
            opened.close()


def test_a_store_that_is_not_there_is_not_made_by_the_way(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must have been made, got none; palette tenant init makes one"):
        Database(str(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").write_bytes(b"")
    with pytest.raises(StoreError, match="must have been made"):
        Database(str(tmp_path / "empty.db"))


def test_a_folder_in_which_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a store's file must be writable"):
        Database(str(tmp_path / "file" / "tenants.db"), create=True)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="unable to open database file"):
        Database(str(tmp_path / "folder"), create=True)


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "nonsense://", "://"]
)
def test_other_urls_are_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(StoreError, match="a file of SQLite or a database of PostgreSQL") as told:
        Database(url, create=True)
    assert "secret" not in str(told.value)


def test_a_server_out_of_reach_is_told_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="check that its server runs") as told:
        Database(f"postgresql://palette:hunter2@/none?host={tmp_path}")
    assert "hunter2" not in str(told.value)
    assert "***" in str(told.value)


def test_without_the_driver_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"needs the package psycopg, got none; pip install"):
        Database("postgresql://palette@localhost/palette")


def test_a_store_that_another_process_holds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT", 0)
    holder, other = Database(url, create=True), Database(url)
    with (
        holder.writing(),
        pytest.raises(StoreError, match="database is locked; end the process that holds it"),
        other.writing(),
    ):
        pass
    with holder.writing(), other.reading() as connection:
        # Who reads waits for nobody.
        assert len(list(read(connection))) == 1
    holder.close()
    other.close()


def test_a_store_whose_file_went_away_opens_nothing_anew(tmp_path: Path) -> None:
    opened = Database(str(tmp_path / "tenants.db"), create=True)
    opened.close()
    for each in tmp_path.iterdir():
        each.unlink()
    with pytest.raises(StoreError), opened.reading() as connection:
        list(read(connection))
    opened.close()


def test_a_path_with_signs_that_mean_something_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "100% of ?#&" / "tenants.db"
    Database(str(path), create=True).close()
    assert path.is_file()
