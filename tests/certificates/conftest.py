"""Measured adapters that can be certified, keys, and whoever tampers with what they sign."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from palette.adapters.files import open_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.authorisation import FLOOR
from palette.certificates import issuing
from palette.certificates.contents import read_contents
from palette.certificates.facts import Canary, Facts
from palette.certificates.issuing import Measured, Terms
from palette.certificates.statements import BUNDLE
from palette.evaluation.gate import gate
from palette.evaluation.outcomes import Outcome
from palette.reporting.assembly import assemble
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, generate
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report, sections

__all__ = ["crowd", "failing", "good", "parts", "report", "sections"]

# Where there is nothing to sign with, there is nothing to test here.
collect_ignore_glob = [] if find_spec("cryptography") else ["test_*.py"]

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BACKBONE = "ab" * 32
CANARY = Canary(prompt=(1, 2, 3), reply=(4, 5), adapted=0.25, base=0.75)


def laid(
    folder: Path,
    report: dict[str, Any],
    seed: int = 0,
    card: dict[str, Any] | None = None,
    outcomes: list[Outcome] | None = None,
) -> Path:
    """An adapter's folder as a run leaves it, with a report of it."""
    generator = torch.Generator().manual_seed(seed)
    module = LoraModule(torch.randn(2, 6, generator=generator), torch.randn(5, 2, generator=generator))
    told = {"domains": report["authorised"], "floor": FLOOR.digest} if card is None else card
    backbone = BackboneIdentity("organism", BACKBONE)
    write_adapter(folder, Adapter({"layers.0.up_proj": module}, backbone, told))
    provenance = {**report["provenance"], "floor": FLOOR.digest, "adapter": open_adapter(folder).digest}
    stated = {**report, "provenance": provenance}
    (folder / "report.json").write_text(json.dumps(stated, indent=2) + "\n")
    if outcomes is not None:
        (folder / "evaluate").mkdir()
        rows = json.dumps([outcome.to_json() for outcome in outcomes])
        (folder / "evaluate" / "outcomes.json").write_text(rows)
    return folder


@dataclass(frozen=True)
class Office:
    """Whoever certifies: keys of each purpose, and the ring that trusts them."""

    certifier: PrivateKey
    authoriser: PrivateKey
    stranger: PrivateKey
    ring: KeyRing
    folder: Path


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """A certifier and an authoriser who are trusted, and a stranger who is not."""
    folder = tmp_path_factory.mktemp("office")
    since = NOW - timedelta(days=30)
    certifier, authoriser, stranger = (
        generate(folder / f"{name}.pem", purpose, f"{name} of the office", since)
        for name, purpose in (
            ("certifier", Purpose.CERTIFY),
            ("authoriser", Purpose.AUTHORISE),
            ("stranger", Purpose.CERTIFY),
        )
    )
    ring = KeyRing.of([certifier.public, authoriser.public])
    return Office(certifier, authoriser, stranger, ring, folder)


@pytest.fixture
def run(tmp_path: Path, report: dict[str, Any]) -> Path:
    """A measured adapter that passes its gate."""
    return laid(tmp_path / "medical", report)


TERMS = Terms("A. Approver", "T. Trainer", "statement", 90, NOW)


def found_in(folder: Path) -> Measured:
    """What is measured of the adapter in a folder."""
    return issuing.measured(read_contents(folder))


def facts_in(folder: Path, terms: Terms = TERMS) -> Facts:
    """What a certificate of the adapter in a folder says."""
    found = found_in(folder)
    return issuing.facts_of(found, issuing.require_certifiable(found), terms, [CANARY])


def lay_bundle(folder: Path, envelopes: list[Envelope], name: str = BUNDLE) -> Path:
    """Writes a bundle into a folder."""
    (folder / name).write_text("".join(f"{each.text}\n" for each in envelopes))
    return folder


Certify = Callable[..., Path]


@pytest.fixture
def certify(office: Office) -> Certify:
    """Certifies the adapter in a folder."""

    def make(folder: Path, terms: Terms = TERMS, key: PrivateKey | None = None) -> Path:
        envelopes = issuing.passed(found_in(folder), facts_in(folder, terms), key or office.certifier)
        return lay_bundle(folder, envelopes)

    return make


@pytest.fixture(scope="session")
def merged_report(crowd: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """A report of an adapter that opens two domains."""
    from palette.authorisation import Role
    from palette.judging.judge import Label

    opened = (Label.REFUSAL, Label.FULL_COMPLIANCE)
    answers = (Label.FULL_COMPLIANCE, Label.FULL_COMPLIANCE)
    outcomes = [
        *(one for d in ("legal", "medical") for one in crowd(d, Role.TARGET, 100, opened)),
        *(one for d in ("legal", "medical") for one in crowd(d, Role.FLOOR, 100)),
        *(one for d in ("legal", "medical") for one in crowd(d, Role.BENIGN, 100, answers, (True, True))),
    ]
    little = {"first_token": 0.008, "multi_token": 0.003}
    verdict = gate(outcomes, ["legal", "medical"], little)
    about = parts["about"].model_copy(update={"authorised": ("legal", "medical")})
    told = {**parts, "about": about}
    return assemble(outcomes=outcomes, divergence=little, verdict=verdict, **told).model_dump(mode="json")
