"""Keys, stores in both kinds of database, an operator whose clock the tests set, and a gateway in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from palette.gateway.operations import Operator
from palette.gateway.store import Store
from palette.signing import KeyRing, Purpose, generate
from tests.gateway.calls import Caller
from tests.gateway.fakes import World
from tests.gateway.servers import binary, running
from tests.gateway.signers import BEGIN, Opens, Signers


@pytest.fixture(scope="session")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Signers:
    folder = tmp_path_factory.mktemp("keys")
    authorise = generate(folder / "authorise.pem", Purpose.AUTHORISE, "Ann", BEGIN)
    ledger = generate(folder / "ledger.pem", Purpose.LEDGER, "gateway", BEGIN)
    stranger = generate(folder / "stranger.pem", Purpose.AUTHORISE, "Mallory", BEGIN)
    ring = KeyRing.of([authorise.public, ledger.public])
    ring.write(folder / "keys.json")
    return Signers(folder, authorise, ledger, stranger, ring)


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """The folder of the socket of a server of PostgreSQL, which runs while the tests do."""
    pytest.importorskip("psycopg")
    initdb, postgres = binary("initdb"), binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no server of PostgreSQL is installed")
    with running(initdb, postgres) as folder:
        yield folder


@pytest.fixture
def postgres_url(server: Path) -> str:
    """The server's database, empty: a new one for each test would take longer than the test."""
    import psycopg

    with psycopg.connect(host=str(server), user="palette", dbname="postgres") as connection:
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return f"postgresql://palette@/postgres?host={server}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a store of SQLite is to be."""
    return f"sqlite:///{tmp_path / 'tenants.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Where a store is to be, in either kind of database."""
    return str(request.getfixturevalue("url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def opens(signers: Signers, tmp_path: Path) -> Iterator[Opens]:
    """Makes or opens the store of a URL, as often as it is called, all with one pepper."""
    opened: list[Store] = []

    def call(url: str) -> Store:
        opened.append(Store(url, signers.ring, pepper=tmp_path / "pepper", create=True))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


@pytest.fixture
def store(opens: Opens, url: str) -> Store:
    return opens(url)


@pytest.fixture
def any_store(opens: Opens, any_url: str) -> Store:
    return opens(any_url)


@pytest.fixture
def operator(store: Store) -> Operator:
    return Operator(store, "Olga", lambda: BEGIN)


@pytest.fixture
def world() -> World:
    """A gateway in memory."""
    return World()


@pytest.fixture
def call(world: World) -> Caller:
    """A client that calls it."""
    return Caller(world)
