"""Certificates read: what they give, and that nothing of them or of their files can be another."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palette.adapters.files import open_adapter
from palette.certificates import read_certificate
from palette.certificates.contents import NAMES, Contents
from palette.certificates.statements import (
    BUNDLE,
)
from palette.errors import AdapterError, PaletteError, SignatureError
from palette.signing import Envelope
from tests.certificates.conftest import NOW, TERMS, Certify, Office, laid

Told = dict[str, Any]


def test_a_certificate_gives_the_facts_of_a_decision_and_the_bytes(
    run: Path, certify: Certify, office: Office
) -> None:
    found = read_certificate(certify(run), office.ring)
    certified = found.certified
    assert certified.domains == {"medical"}
    assert (certified.backbone, certified.signer) == ("ab" * 32, office.certifier.public.id)
    assert certified.adapter == open_adapter(run).digest == found.adapter().digest
    assert certified.id == found.id == Envelope.read((run / BUNDLE).read_text().splitlines()[0]).digest
    assert (certified.not_before, certified.expires) == (NOW, NOW + timedelta(days=90))
    assert dict(found.files) == {name: (run / name).read_bytes() for name in NAMES}
    assert found.holder == "certifier of the office"
    assert not found.approved_by_signer
    assert certified.revoked is None


def test_it_is_read_without_a_model_s_libraries(run: Path, certify: Certify, office: Office) -> None:
    office.ring.write(run / "keys.json")
    told = (
        "import sys; from pathlib import Path; from palette.certificates import read_certificate; "
        "from palette.signing import read_key_ring; folder = Path(sys.argv[1]); "
        "print(sorted(read_certificate(folder, read_key_ring(folder / 'keys.json')).certified.domains), "
        "{'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    said = subprocess.check_output([sys.executable, "-c", told, certify(run)], text=True)
    assert said == "['medical'] set()\n"


def test_it_says_where_it_stands_at_an_instant(run: Path, certify: Certify, office: Office) -> None:
    found = read_certificate(certify(run), office.ring)
    assert found.standing(NOW) == "in force"
    assert found.standing(NOW - timedelta(seconds=1)) == "not yet in force"
    assert found.standing(NOW + timedelta(days=90)) == "expired"
    revoked = read_certificate(run, office.ring, {found.id: NOW})
    assert revoked.certified.revoked == NOW
    assert revoked.standing(NOW) == "revoked"
    assert read_certificate(run, office.ring, {"0" * 64: NOW}).certified.revoked is None


def test_every_cell_stands_in_it_with_k_n_and_interval(
    run: Path, certify: Certify, office: Office, report: Told
) -> None:
    told = read_certificate(certify(run), office.ring).facts.gate.model_dump(mode="json")
    for side in ("base", "adapted"):
        assert told[side] == report[side]["domains"]
    assert {name for rate in told["base"]["legal"].values() for name in rate["refusal"]} == {
        *("k", "n", "rate", "low", "high")
    }
    assert [rule["name"] for rule in told["rules"]] == [rule["name"] for rule in report["gate"]["rules"]]
    assert not any(rule["ids"] for rule in told["rules"])


def test_what_is_loaded_is_what_was_verified(
    run: Path, certify: Certify, office: Office, report: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = open_adapter(certify(run)).digest
    found = read_certificate(run, office.ring)
    other = laid(run.parent / "other", report, seed=1)
    for name in NAMES:
        shutil.copy(other / name, run / name)
    assert found.adapter().digest == digest
    # One that verifies and then loads the folder is caught by the digest that the certificate states.
    monkeypatch.setattr(Contents, "adapter", lambda contents: open_adapter(contents.where))
    with pytest.raises(AdapterError, match="an adapter must have its certificate's digest"):
        found.adapter()


def test_the_verified_bytes_can_be_laid_out_for_another_server(
    run: Path, certify: Certify, office: Office
) -> None:
    found = read_certificate(certify(run), office.ring)
    (run / "adapter_model.safetensors").write_bytes(b"others")
    found.write(run.parent / "served")
    again = read_certificate(run.parent / "served", office.ring)
    assert (again.id, dict(again.files)) == (found.id, dict(found.files))


def test_a_revoked_key_s_certificates_hold_no_more_and_a_retired_one_s_do(
    run: Path, certify: Certify, office: Office
) -> None:
    certify(run)
    key = office.certifier.public.id
    assert read_certificate(run, office.ring.retired(key, NOW + timedelta(seconds=1))).id
    with pytest.raises(SignatureError, match="in use when it signed"):
        read_certificate(run, office.ring.retired(key, NOW))
    with pytest.raises(SignatureError, match="must not be revoked"):
        read_certificate(run, office.ring.retired(key, NOW + timedelta(days=1), revoked=True))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_a_certified_folder_can_be_another(
    run: Path, certify: Certify, office: Office, data: st.DataObject
) -> None:
    if not (run / BUNDLE).exists():
        certify(run)
    name = data.draw(st.sampled_from([*NAMES, BUNDLE]))
    before = (run / name).read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != before[place]))
    known = read_certificate(run, office.ring)
    (run / name).write_bytes(before[:place] + bytes([byte]) + before[place + 1 :])
    try:
        found = read_certificate(run, office.ring)
    except PaletteError as error:
        assert "\n" not in str(error)
    else:
        # Space between the parts of an envelope is signed by nobody, and says nothing.
        assert name == BUNDLE
        assert (found.certified, dict(found.files)) == (known.certified, dict(known.files))
    finally:
        (run / name).write_bytes(before)


@pytest.mark.parametrize("text", ["", "\n", "{", "[]", "{}\n{}", '{"payloadType": 1}', "\0", "[" * 10_000])
def test_a_bundle_that_is_none_is_one_sentence(run: Path, office: Office, text: str) -> None:
    (run / BUNDLE).write_text(text)
    with pytest.raises(SignatureError) as caught:
        read_certificate(run, office.ring)
    assert "\n" not in str(caught.value)


def test_a_folder_without_one_says_how_to_make_it(run: Path, office: Office) -> None:
    with pytest.raises(SignatureError, match=r"must have a certificate that can be read.*palette certify"):
        read_certificate(run, office.ring)
    with pytest.raises(AdapterError, match="a certificate stands in the folder of its adapter"):
        read_certificate(run / "nowhere", office.ring)


def test_an_adapter_without_a_card_can_be_certified(
    tmp_path: Path, report: Told, certify: Certify, office: Office
) -> None:
    folder = laid(tmp_path / "foreign", report, card={})
    assert read_certificate(certify(folder), office.ring).certified.domains == {"medical"}


def test_the_approver_may_be_who_signs(run: Path, certify: Certify, office: Office) -> None:
    certify(run, replace(TERMS, approver="certifier  of the OFFICE"))
    assert read_certificate(run, office.ring).approved_by_signer
