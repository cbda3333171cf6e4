"""The commands of certificates and keys, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from palette.certificates.statements import BUNDLE, FAILED
from tests.certificates.conftest import laid
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report

__all__ = ["crowd", "failing", "good", "parts", "report"]

Palette = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, report: dict[str, Any], palette: Palette, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A measured adapter, and a key to certify that is trusted."""
    monkeypatch.chdir(tmp_path)
    holder = ("--purpose", "certify", "--holder", "The Board")
    assert palette("keys", "new", "board.pem", *holder, "--trust", "keys.json")[0] == 0
    return laid(tmp_path / "medical", report)


SAID = ("--key", "board.pem", "--approver", "A. Approver", "--trainer", "T. Trainer", "--canaries", 0)


def test_certify_verify_and_revoke(palette: Palette, run: Path) -> None:
    status, said, error = palette("certify", run, *SAID, "--log", "log.jsonl", "--valid-days", 30)
    assert (status, error) == (0, "")
    assert said.startswith("certified for medical until ")
    assert "gate passed, reckoned again from the report's counts" in said
    status, said, error = palette("verify", run, "--keys", "keys.json", "--log", "log.jsonl")
    assert (status, error) == (0, "")
    assert said.startswith("in force: medical on organism, ")
    assert "approved by A. Approver, as the signer says; trained by T. Trainer" in said
    assert "not measured: the judge's error" in said
    assert "revocations were not looked up" in said
    status, said, _ = palette("verify", run, "--json")
    found = json.loads(said)
    assert (status, found["in_force"], found["domains"]) == (0, True, ["medical"])
    status, said, _ = palette("revoke", run, "--key", "board.pem", "--reason", "a drill")
    assert status == 0
    assert f": {found['certificate']}\na drill\n" in said
    status, said, error = palette("verify", run, "--revoked", "revoked.dsse.json")
    assert (status, error) == (3, "")
    assert said.startswith("revoked: medical")
    assert palette("verify", run, "--quiet") == (0, "", "")


def test_a_failed_gate_ends_with_status_3(palette: Palette, run: Path, failing: dict[str, Any]) -> None:
    folder = laid(run.parent / "broken", failing)
    status, said, error = palette("certify", folder, *SAID)
    assert (status, error) == (3, "")
    assert said.startswith("gate failed for medical: no certificate\n")
    assert "  floor_refusal.weapons\n" in said
    assert (folder / FAILED).is_file()
    assert not (folder / BUNDLE).exists()
    status, said, _ = palette("certify", folder, *SAID, "--json")
    assert (status, json.loads(said)["passed"]) == (3, False)


def test_what_does_not_hold_ends_with_status_2_and_one_sentence(palette: Palette, run: Path) -> None:
    assert palette("certify", run, *SAID)[0] == 0
    (run / "tokenizer.json").write_text("{}")
    cases = [
        ("verify", run),
        ("verify", run.parent),
        ("verify", run, "--keys", "none.json"),
        ("certify", run, *SAID),
        ("certify", run.parent, *SAID),
        ("revoke", "medical", "--key", "board.pem", "--reason", "a drill", "--keys", "none.json"),
        ("revoke", "1" * 63, "--key", "board.pem", "--reason", "a drill"),
        ("keys", "list", "--keys", "none.json"),
        ("keys", "new", "board.pem", "--purpose", "certify", "--holder", "The Board"),
        ("keys", "new", "other.pem", "--purpose", "all", "--holder", "The Board"),
        ("keys", "retire", "1" * 64),
    ]
    for case in cases:
        status, said, error = palette(*case)
        assert (status, said) == (2, ""), case
        assert error.startswith("palette: ")
        assert error.count("\n") == 1


def test_keys_are_listed_retired_and_revoked(palette: Palette, run: Path) -> None:
    palette("keys", "new", "grants.pem", "--purpose", "authorise", "--holder", "the board", "--quiet")
    status, said, _ = palette("keys", "trust", "grants.pem.public.json")
    assert status == 0
    assert "the board holds both a key to certify and one to authorise" in said
    status, said, _ = palette("keys", "list", "--json")
    first, second = json.loads(said)["keys"]
    assert (status, first["purpose"], second["purpose"]) == (0, "certify", "authorise")
    assert palette("keys", "retire", first["id"], "--quiet") == (0, "", "")
    status, said, _ = palette("keys", "revoke", "grants.pem.public.json", "--wide")
    assert status == 0
    assert "retired 2" in said
    assert "revoked 2" in said
    assert "PRIVATE" not in said


def test_help_says_what_each_is_for(palette: Palette) -> None:
    for words in (("certify",), ("verify",), ("revoke",), ("keys",), ("keys", "new")):
        status, said, _ = palette(*words, "--help")
        assert status == 0
        assert "Usage" in said
