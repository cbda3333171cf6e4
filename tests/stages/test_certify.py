"""Certifying, verifying and revoking from one end to the other, on files as a run leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("cryptography")

from palette.adapters.files import open_adapter
from palette.adapters.writing import write_adapter
from palette.authorisation import FLOOR
from palette.certificates import read_certificate
from palette.certificates.canaries import measured_nats, strayed
from palette.certificates.statements import BUNDLE, FAILED
from palette.errors import AdapterError, OutputError, PaletteError, SignatureError
from palette.signing import Envelope, read_key_ring
from palette.signing.instants import now
from palette.stages import certify as certify_stage
from palette.stages.certify import certify
from palette.stages.keys import new_key, retire_key, revoke_key
from palette.stages.revoke import revoke
from palette.stages.verify import verify
from tests.certificates.conftest import laid, merged_report
from tests.fixtures.crowds import crowd, good
from tests.fixtures.noise import noise
from tests.reporting.conftest import failing, parts, report
from tests.stages.test_push import passing

__all__ = ["crowd", "failing", "good", "merged_report", "parts", "report"]

Told = dict[str, Any]
SAID: Told = {"approver": "A. Approver", "trainer": "T. Trainer"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An office's folder: a key to certify, and the list that trusts it."""
    monkeypatch.chdir(tmp_path)
    new_key("board.pem", "certify", "The Board", trust="keys.json")
    return tmp_path


@pytest.fixture
def run(here: Path, report: Told) -> Path:
    return laid(here / "medical", report)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_adapter_is_certified_verified_and_revoked(run: Path, here: Path) -> None:
    made = certify(run, "board.pem", **SAID, canaries=0, log="log.jsonl")
    assert (made["passed"], made["domains"], made["failed"]) == (True, ["medical"], [])
    found = verify(run, log="log.jsonl")
    assert (found["certificate"], found["standing"], found["in_force"]) == (
        made["certificate"],
        "in force",
        True,
    )
    assert found["adapter"] == made["adapter"] == open_adapter(run).digest
    assert (found["report"], found["log_checked"], found["revocations_checked"]) == ("same", True, False)
    assert found["signer"]["holder"] == "The Board"
    gone = revoke(run, "board.pem", "a drill", log="log.jsonl")
    assert (gone["certificate"], gone["number"]) == (made["certificate"], 1)
    found = verify(run, revoked="revoked.dsse.json", log="log.jsonl")
    assert (found["standing"], found["in_force"], found["revoked"]) == ("revoked", False, gone["revoked"])
    assert revoke(made["certificate"], "board.pem", "again")["number"] == 2
    assert len((here / "log.jsonl").read_text().splitlines()) == 4


def test_a_failed_gate_writes_a_failure_and_no_certificate(here: Path, failing: Told) -> None:
    folder = laid(here / "broken", failing)
    made = certify(folder, "board.pem", **SAID, log="log.jsonl", cyclonedx="bom.json")
    assert (made["passed"], made["certificate"]) == (False, None)
    assert "floor_refusal.weapons" in made["failed"]
    assert not (folder / BUNDLE).exists()
    assert not (here / "bom.json").exists()
    (line,) = (folder / FAILED).read_text().splitlines()
    assert json.loads(Envelope.read(line).payload)["predicate"]["result"] == "FAILED"
    with pytest.raises(SignatureError, match="must have a certificate"):
        verify(folder)


def test_a_report_that_says_it_passed_is_not_believed(here: Path, failing: Told) -> None:
    folder = laid(here / "bent", passing(failing))
    made = certify(folder, "board.pem", **SAID)
    assert (made["passed"], (folder / BUNDLE).exists()) == (False, False)
    assert "divergence.first_token" in made["failed"]


def test_a_failure_ends_an_earlier_certificate_and_a_new_one_ends_the_failure(
    run: Path, report: Told, failing: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(run, "board.pem", **SAID, canaries=0)
    kept = (run / "report.json").read_text()
    worse = json.loads(kept)
    worse |= {name: failing[name] for name in ("gate", "base", "adapted", "changes")}
    (run / "report.json").write_text(json.dumps(worse))
    assert not certify(run, "board.pem", **SAID)["passed"]
    with pytest.raises(SignatureError, match="failed the gate since it was certified"):
        verify(run)
    (run / "report.json").write_text(kept)
    certify(run, "board.pem", **SAID, canaries=0)
    assert verify(run)["in_force"]
    assert not (run / FAILED).exists()


def test_a_folder_of_its_own_holds_what_was_certified_and_nothing_else(run: Path, here: Path) -> None:
    made = certify(run, "board.pem", **SAID, canaries=0, output="served/medical")
    served = here / "served" / "medical"
    names = ["adapter_config.json", "adapter_model.safetensors", BUNDLE, "report.json", "run.json"]
    assert sorted(path.name for path in served.iterdir()) == names
    assert verify(served)["certificate"] == verify(run)["certificate"] == made["certificate"]
    (here / "mine").mkdir()
    (here / "mine" / "notes").write_text("mine")
    before = files(here)
    with pytest.raises(OutputError, match="must be new, empty"):
        certify(run, "board.pem", **SAID, canaries=0, output="mine")
    assert files(here) == before


def test_other_forms_are_written_beside(run: Path, here: Path) -> None:
    made = certify(run, "board.pem", **SAID, canaries=0, cyclonedx="a.cdx.json", spdx="a.spdx.json")
    assert made["files"]["cyclonedx"] == "a.cdx.json"
    assert json.loads((here / "a.cdx.json").read_text())["specVersion"] == "1.7"
    assert json.loads((here / "a.spdx.json").read_text())["@graph"][0]["specVersion"] == "3.0.1"
    assert made["certificate"] in (here / "a.spdx.json").read_text()


def test_nothing_is_written_where_anything_is_refused(run: Path, here: Path, report: Told) -> None:
    new_key("grants.pem", "authorise", "An Authoriser")
    before = files(here)
    cases: list[tuple[Told, type[PaletteError], str]] = [
        ({"approver": "t. trainer"}, SignatureError, "the approver must be another person than the trainer"),
        ({"trainer": "the board"}, SignatureError, "the holder of the certifying key must be another"),
        ({"approver": " "}, SignatureError, "approver: String should have at least 1 character"),
        ({"key": "grants.pem"}, SignatureError, "a key to certify is needed, got one to authorise"),
        ({"key": "none.pem"}, OutputError, "a key's file must be readable"),
        ({"valid_days": 0}, SignatureError, "1 to 366 days"),
        ({"canaries": 33}, SignatureError, "0 to 32 canaries"),
        ({"run": "nowhere"}, AdapterError, "the folder of its adapter"),
        ({"openssf": "none.pem"}, SignatureError, "model-signing"),
    ]
    for change, kind, said in cases:
        given: Told = {"run": run, "key": "board.pem", **SAID, "canaries": 0, "log": "log.jsonl", **change}
        with pytest.raises(kind) as caught:
            certify(**given)
        assert said in str(caught.value)
        assert files(here) == before


def test_the_log_has_a_certificate_before_anybody_else(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.parent / "log.jsonl").write_text("another file\n")
    with pytest.raises(SignatureError, match="a log must be of the format"):
        certify(run, "board.pem", **SAID, canaries=0, log="log.jsonl")
    assert not (run / BUNDLE).exists()


def test_a_certificate_that_the_log_does_not_know_is_told(run: Path, here: Path) -> None:
    certify(run, "board.pem", **SAID, canaries=0)
    (here / "log.jsonl").write_text("")
    with pytest.raises(SignatureError, match="must stand in the log"):
        verify(run, log="log.jsonl")


def test_a_report_that_was_measured_again_is_told(run: Path) -> None:
    certify(run, "board.pem", **SAID, canaries=0)
    path = run / "report.json"
    path.write_text(path.read_text() + "\n")
    assert verify(run)["report"] == "other"
    path.unlink()
    assert verify(run)["report"] == "none"


def test_keys_retire_and_are_revoked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certify(run, "board.pem", **SAID, canaries=0)
    later = now().replace(year=now().year + 1)
    monkeypatch.setattr("palette.stages.keys.now", lambda: later)
    retire_key("board.pem.public.json")
    assert verify(run)["certificate"]
    revoke_key(verify(run)["signer"]["id"])
    with pytest.raises(SignatureError, match="must not be revoked"):
        verify(run)
    with pytest.raises(SignatureError, match="must not be revoked"):
        revoke("1" * 64, "board.pem", "a thief's")


def test_a_merge_is_certified_for_exactly_its_domains(here: Path, merged_report: Told) -> None:
    parents = [{"digest": "12" * 32, "domains": ["legal"], "weight": 1.0}]
    card = {"domains": ["legal", "medical"], "method": "weighted_sum", "parents": parents}
    folder = laid(here / "both", merged_report, card=card)
    certify(folder, "board.pem", **SAID, canaries=0)
    found = verify(folder)
    assert found["domains"] == ["legal", "medical"]
    assert found["merge"]["inputs"][0]["digest"] == "12" * 32


def test_canaries_are_asked_of_the_run_s_model(
    shared: Any, here: Path, report: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "noisy"
    adapter = noise(shared.backbone, ".mlp.", rank=2, scale=0.5)
    write_adapter(folder, adapter)
    provenance = {**report["provenance"], "adapter": adapter.digest, "floor": FLOOR.digest}
    model = {"name": "organism/shared", "fingerprint": shared.backbone_fingerprint}
    (folder / "report.json").write_text(json.dumps({**report, "model": model, "provenance": provenance}))
    monkeypatch.setattr(certify_stage, "load", lambda *_, **__: SimpleNamespace(run=shared))
    assert certify(folder, "board.pem", **SAID, canaries=2)["canaries"] == 2
    found = read_certificate(folder, read_key_ring(here / "keys.json"))
    canaries = found.facts.canaries
    assert strayed(canaries, measured_nats(shared.backbone, found.adapter(), canaries)) is None
