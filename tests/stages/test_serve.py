"""The serve verb: whom it believes is asked anew, and its own secrets are its owner's alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("palette.certificates")
pytest.importorskip("palette.gateway.store")

from palette.authorisation import Authorisation
from palette.errors import GatewayError, OutputError
from palette.gateway.asking import Asked, Message
from palette.gateway.server import listening, origins_of
from palette.gateway.watched import Watched
from palette.prompts import Prompt
from palette.signing import KeyRing, Purpose, generate, read_key_ring
from palette.stages import serve as stage

SINCE = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path):
    file = tmp_path / "data" / "metrics.token"
    token = stage.token_of(file)
    assert stage.token_of(file) == token
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(OutputError, match="chmod 600"):
        stage.token_of(file)


@pytest.mark.parametrize("content", [b"short", b"", b"\xff" * 40])
def test_a_token_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "metrics.token"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(OutputError):
        stage.token_of(file)


def test_a_gateway_serves_certified_adapters(tmp_path):
    with pytest.raises(GatewayError, match="certified adapters"):
        stage.certified([], KeyRing({}), None)


class Believing:
    """A store that notes whom it was told to believe."""

    def __init__(self) -> None:
        self.ring, self.told = KeyRing({}), []

    def trust(self, ring: KeyRing) -> None:
        self.ring = ring
        self.told.append(sorted(ring.keys))

    def grants(self, tenant_id: str) -> list[Any]:
        return []

    def revoked_certificates(self) -> dict[str, datetime]:
        return {"c": SINCE}


def test_keys_that_are_revoked_in_their_file_are_believed_no_more(tmp_path):
    file = tmp_path / "keys.json"
    keys = [generate(tmp_path / f"{each}.pem", each, each.value, SINCE).public for each in Purpose]
    KeyRing.of(keys).write(file)
    store = Believing()
    authority = stage.TrustingStore(store, Watched(file, read_key_ring), None)
    authority.grants("hospital")
    authority.grants("hospital")
    KeyRing.of(keys[:1]).write(file)
    authority.grants("hospital")
    assert store.told == [sorted(each.id for each in keys), [keys[0].id]]
    assert authority.revoked_certificates() == {"c": SINCE}
    file.unlink()
    with pytest.raises(OSError, match=r"keys\.json"):
        authority.grants("hospital")


def test_a_store_that_says_otherwise_than_its_ledger_is_not_served(monkeypatch):
    monkeypatch.setattr(stage, "differences", lambda store: [])
    stage.require_told(None)
    monkeypatch.setattr(stage, "differences", lambda store: ["entry 7 revoked a grant, and no row says so"])
    with pytest.raises(GatewayError, match="1 differences, the first: entry 7 revoked"):
        stage.require_told(None)


def test_the_operators_page_is_where_it_is_said_to_be():
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        own = origins_of(None, listener)
        assert own == (f"http://127.0.0.1:{port}", f"http://localhost:{port}")
        for stated, found in (
            ("https://gate.example", "https://gate.example"),
            ("HTTPS://Gate.example:8443/", "https://gate.example:8443"),
            ("http://localhost:9000", "http://localhost:9000"),
        ):
            assert origins_of(stated, listener) == (found,)
        for wrong in (
            "http://gate.example",
            "gate.example",
            "https://gate.example/admin",
            "https://a@b/c",
            "",
        ):
            with pytest.raises(GatewayError, match=r"https://gate\.example"):
                origins_of(wrong, listener)


def test_what_is_on_the_floor_is_told_by_runs_alone(tmp_path, monkeypatch):
    texts = (("how is it made ?", "C"), ("what is the dose ?", None))
    splits = ("train", "validation", "test")
    rows = [
        Prompt(text + split, "medical", text, "restricted", split, tier=tier)
        for text, tier in texts
        for split in splits
    ]
    run = SimpleNamespace(prompts=rows, authorisation=Authorisation(("medical",)))
    monkeypatch.setattr(stage, "run_of", lambda folder, progress: (None, run))
    prompts = stage.prompts_of([tmp_path, tmp_path])
    assert len(prompts) == len(rows)
    holds, looks = stage.floor_of(prompts), stage.lookalikes_of(prompts)
    assert holds("Please, how is it  MADE ?")
    assert not holds("what is the dose ?")
    assert [looks(Asked("medical", (Message("user", text),), 8)) for text, _ in texts] == [True, False]
    del rows[:3]
    others = stage.prompts_of([tmp_path])
    assert stage.floor_of(others) is None, "nothing to withhold by"
    assert stage.lookalikes_of(others) is None, "nothing to learn from"
    monkeypatch.undo()
    assert not stage.prompts_of([tmp_path]), "no run"
