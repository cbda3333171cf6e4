"""The commands of tenants and of the ledger as an operator types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from palette.cli import tenants
from palette.gateway.database import Database
from palette.signing import KeyRing, Purpose, generate

Palette = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with keys, in which commands are typed, and an operator's own data."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        generate(tmp_path / f"{purpose}.pem", purpose, f"holder of {purpose}", at)
        for purpose in (Purpose.AUTHORISE, Purpose.LEDGER)
    ]
    KeyRing.of([each.public for each in made]).write(tmp_path / "keys.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALETTE_DATA", str(tmp_path / "data"))
    for name in ("PALETTE_STORE", "PALETTE_PEPPER_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


Asks = Callable[..., Any]


@pytest.fixture
def asks(palette: Palette) -> Asks:
    """What a command says as JSON, and nothing else."""

    def call(*arguments: object) -> Any:
        status, out, error = palette(*arguments, "--json")
        assert (status, error) == (0, "")
        return json.loads(out)

    return call


GRANT = ("--domains", "medical,legal", "--days", 90, "--evidence", "contract 12", "--key", "authorise.pem")


def test_from_nothing_to_a_ledger_that_holds(home: Path, asks: Asks) -> None:
    made = asks("tenant", "init")
    assert made == {
        "store": str(home / "data" / "tenants.db"),
        "pepper": str(home / "data" / "tenants.db.pepper"),
    }
    assert asks("tenant", "init") == made
    tenant = {"id": "hospital", "name": "St. Ann", "suspended": False}
    assert asks("tenant", "add", "hospital", "--name", "St. Ann") == {"tenants": [tenant]}
    assert asks("tenant", "list") == {"tenants": [tenant]}
    grant = asks("grant", "add", "hospital", *GRANT)["grants"][0]
    assert (grant["tenant"], grant["domains"], grant["evidence"]) == (
        "hospital",
        ["legal", "medical"],
        "contract 12",
    )
    key = asks("tenant", "key", "new", "hospital", "--domains", "medical", "--until", "2126-01-01T00:00:00Z")
    child = asks("tenant", "key", "new", "hospital", "--parent", key["id"])
    assert (child["domains"], child["expires"]) == (["medical"], "2126-01-01T00:00:00Z")
    listed = asks("tenant", "key", "list", "hospital")["keys"]
    assert {each["id"] for each in listed} == {key["id"], child["id"]}
    assert asks("tenant", "suspend", "hospital", "--reason", "audit")["tenants"][0]["suspended"]
    assert not asks("tenant", "resume", "hospital", "--reason", "passed")["tenants"][0]["suspended"]
    assert asks("tenant", "key", "revoke", key["id"], "--reason", "lost")["kind"] == "key"
    assert asks("grant", "revoke", grant["id"], "--reason", "over")["id"] == grant["id"]
    assert (
        asks("tenant", "withdraw", "c" * 64, "--reason", "withdrawn", "--who", "Olga")["kind"]
        == "certificate"
    )
    (revoked,) = asks("grant", "list", "hospital")["grants"]
    assert revoked["revoked"] is not None
    head = asks("ledger", "head", "--key", "ledger.pem", "-o", "head.json")
    assert (head["sequence"], head["output"]) == (10, "head.json")
    found = asks("ledger", "verify", "--head", "head.json")
    assert (found["holds"], found["entries"], found["signed_to"]) == (True, 10, 10)
    assert asks("ledger", "export", "-o", "ledger.jsonl") == {"output": "ledger.jsonl"}
    lines = (home / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, 11))
    # The key's text is told once, and stands nowhere.
    for path in home.rglob("*"):
        if path.is_file():
            assert key["key"].split("_")[2].encode() not in path.read_bytes()


def test_what_they_say_to_people(home: Path, palette: Palette) -> None:
    said = {
        "init": palette("tenant", "init"),
        "none": palette("tenant", "list"),
        "add": palette("tenant", "add", "hospital", "--name", "St. Ann\u202e"[:7]),
        "no key": palette("tenant", "key", "list"),
        "key": palette("tenant", "key", "new", "hospital"),
        "keys": palette("tenant", "key", "list"),
        "no grant": palette("grant", "list"),
        "grant": palette("grant", "add", "hospital", *GRANT, "--wide"),
        "revoke": palette("tenant", "withdraw", "c" * 64, "--reason", "withdrawn"),
        "head": palette("ledger", "head"),
        "signed": palette("ledger", "head", "--key", "ledger.pem"),
        "verify": palette("ledger", "verify"),
    }
    assert {status for status, _, _ in said.values()} == {0}
    assert "its pepper is" in said["init"][1]
    assert said["none"][1] == "no tenant\n"
    assert said["no key"][1] == "no key\n"
    assert said["no grant"][1] == "no grant\n"
    assert "this is shown once" in said["key"][1]
    assert "never" in said["keys"][1]
    assert "contract 12" in said["grant"][1]
    assert "is revoked since" in said["revoke"][1]
    assert "entry 5 is the last" in said["head"][1]
    assert "signed at" in said["signed"][1]
    assert "5 entries, signed up to 5 by 1 head\n" in said["verify"][1]
    assert "holds" in said["verify"][1]
    status, out, _ = palette("ledger", "export", "--after", 4)
    assert (status, out.count("\n")) == (0, 1)


def test_a_ledger_that_does_not_hold_is_told_with_another_status(home: Path, palette: Palette) -> None:
    palette("tenant", "init")
    palette("tenant", "add", "hospital")
    palette("tenant", "suspend", "hospital", "--reason", "audit")
    database = Database(str(home / "data" / "tenants.db"))
    with database.writing() as connection:
        connection.execute(text("UPDATE tenants SET suspended = NULL"))
        connection.execute(text("DELETE FROM ledger_entries WHERE sequence = 2"))
    database.close()
    status, out, error = palette("ledger", "verify")
    assert (status, error) == (3, "")
    assert "entry 2 missing" in out
    assert "the suspension of the tenant hospital of entry 3 is not in the store" in out
    assert "does not hold" in out
    assert not json.loads(palette("ledger", "verify", "--json")[1])["holds"]


NEW = ("tenant", "key", "new", "hospital")
ADD = ("grant", "add", "hospital", "--domains", "medical", "--evidence", "contract 12")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenant", "list", "--store", "none.db"), "a store must have been made, got none"),
        (("tenant", "init", "--store", "mysql://u:hunter2@h/d"), "a file of SQLite or a database"),
        (("tenant", "list", "--store", "keys.json"), "got file is not a database"),
        (("tenant", "add", "Hospital"), "a tenant must be named by small letters"),
        (("tenant", "suspend", "hospitl", "--reason", "x"), "did you mean hospital?"),
        ((*NEW, "--days", 3, "--until", "2126-01-01T00:00:00Z"), "by --days or by --until, got both"),
        ((*NEW, "--days", 10**9), "a period must end in the calendar"),
        ((*NEW, "--until", "tomorrow"), "--until must be an instant such as 2026"),
        ((*NEW, "--until", "2020-01-01T00:00:00Z"), "a key must expire in the future"),
        ((*ADD, "--days", 3, "--key", "ledger.pem"), "a key to authorise is needed, got one to ledger"),
        ((*ADD, "--days", 3, "--key", "none.pem"), "a key's file must be readable"),
        ((*ADD, "--key", "authorise.pem"), "an end must be given by --days or by --until, got neither"),
        ((*ADD, "--days", 3, "--key", "authorise.pem", "--keys", "none.json"), "must exist"),
        ((*ADD, "--days", 3, "--key", "authorise.pem", "--keys", "authorise.pem"), "valid JSON"),
        ((*ADD, "--from", "2126-01-01T00:00:00Z", "--until", "2125-01-01T00:00:00Z",
          "--key", "authorise.pem"),
         "a grant must end behind its beginning"),
        (("grant", "revoke", "f" * 32, "--reason", "x"), "a grant must be in the store to be revoked"),
        (("tenant", "withdraw", "abc", "--reason", "x"), "by its id, 64 hexadecimal digits"),
        (("ledger", "head", "-o", "head.json"), "must be signed, got no key; give --key"),
        (("ledger", "verify", "--head", "none.json"), "a signed head must be a readable file"),
        (("ledger", "export", "-o", "keys.json/ledger.jsonl"), "an output file must be writable"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    home: Path, palette: Palette, arguments: tuple[object, ...], said: str
) -> None:
    palette("tenant", "init")
    palette("tenant", "add", "hospital")
    before = json.loads(palette("ledger", "head", "--json")[1])
    status, out, error = palette(*arguments)
    assert (status, out) == (2, "")
    assert error.startswith("palette: ")
    assert error.count("\n") == 1
    assert said in error
    assert "hunter2" not in error
    assert json.loads(palette("ledger", "head", "--json")[1]) == before
    assert not (home / "head.json").exists()


def test_a_pepper_that_others_can_read_opens_nothing(home: Path, palette: Palette) -> None:
    palette("tenant", "init")
    (home / "data" / "tenants.db.pepper").chmod(0o644)
    status, _, error = palette("tenant", "list")
    assert status == 2
    assert "chmod 600" in error


def test_without_the_extra(home: Path, palette: Palette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "find_spec", lambda name: None if name == "alembic" else True)
    status, _, error = palette("tenant", "list")
    assert status == 2
    assert "tenants need the packages" in error
    assert "got none of alembic; pip install 'palette-llm[tenants]'" in error


def test_help_and_the_package_import_none_of_it() -> None:
    program = (
        "import sys, palette, palette.cli.app; from typer.main import get_command;"
        "get_command(palette.cli.app.app);"
        "print([name for name in ('torch', 'fastapi', 'sqlalchemy', 'alembic', 'cryptography')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_operators_keys_are_made_listed_and_removed(home: Path, asks: Asks, palette: Palette) -> None:
    asks("tenant", "init")
    assert "no page" in palette("operator", "list")[1]
    made = asks("operator", "add", "Ann", "--who", "Olga")
    assert made["key"].startswith(f"po_{made['id']}_")
    assert made["name"] == "Ann"
    (listed,) = asks("operator", "list")["operators"]
    assert listed == {name: made[name] for name in ("id", "name", "created")}
    assert palette("operator", "remove", "0" * 16, "--reason", "x")[0] == 2
    assert asks("operator", "remove", made["id"], "--reason", "left the house") == {"id": made["id"]}
    assert asks("operator", "list") == {"operators": []}
    assert asks("ledger", "verify")["holds"]
