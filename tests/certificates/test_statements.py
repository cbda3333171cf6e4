"""The statements as others read them: in-toto's own library, and the fields that their formats demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palette.certificates import issuing
from palette.certificates.statements import (
    BUNDLE,
    CERTIFICATE,
    FINGERPRINT,
    PROVENANCE,
    STATEMENT,
    TEST_RESULT,
    gate_result,
    read_bundle,
    signed,
)
from palette.errors import SignatureError
from palette.signing import Envelope, Purpose, sign
from tests.certificates.conftest import TERMS, Certify, Office, facts_in, found_in, lay_bundle

Told = dict[str, Any]


def payloads(folder: Path) -> list[Told]:
    lines = (folder / BUNDLE).read_text().splitlines()
    return [json.loads(Envelope.read(line).payload) for line in lines]


def test_in_toto_s_own_library_reads_every_statement(run: Path, certify: Certify) -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    for told in payloads(certify(run)):
        message = json_format.ParseDict(told, Message())
        Statement.copy_from_pb(message).validate()
        assert message.type == STATEMENT


def test_its_predicates_are_those_of_their_formats(run: Path, certify: Certify) -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult

    _, result, made = (told["predicate"] for told in payloads(certify(run)))
    # Their formats let fields be added, which readers are to overlook: ours says when it was signed.
    for told, message in ((result, TestResult()), (made, Provenance())):
        known = {name: value for name, value in told.items() if name != "palette_issued"}
        json_format.ParseDict(known, message)
    assert result["result"] == "PASSED"
    assert (result["failedTests"], result["warnedTests"]) == ([], [])
    assert made["buildDefinition"]["buildType"].startswith("https://")
    assert made["runDetails"]["builder"]["id"].startswith("https://")


def test_all_are_about_the_same_files_and_of_one_certificate(run: Path, certify: Certify) -> None:
    certificate, result, made = payloads(certify(run))
    assert certificate["subject"] == result["subject"] == made["subject"]
    assert [each["name"] for each in certificate["subject"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [each["predicateType"] for each in (certificate, result, made)] == [
        *(CERTIFICATE, TEST_RESULT, PROVENANCE)
    ]
    own = Envelope.read((run / BUNDLE).read_text().splitlines()[0]).digest
    assert made["predicate"]["runDetails"]["metadata"]["invocationId"] == own
    assert result["predicate"]["configuration"][0]["digest"] == {"sha256": own}


def test_provenance_names_backbone_and_prompts_by_digest(run: Path, certify: Certify) -> None:
    made = payloads(certify(run))[2]["predicate"]
    used = {each["name"]: each["digest"] for each in made["buildDefinition"]["resolvedDependencies"]}
    assert used == {"organism": {FINGERPRINT: "ab" * 32}, "prompts/test": {FINGERPRINT: "cd" * 32}}


def test_two_certificates_of_the_same_are_the_same_bytes(run: Path, certify: Certify) -> None:
    first = (certify(run) / BUNDLE).read_bytes()
    assert (certify(run) / BUNDLE).read_bytes() == first


def test_a_statement_that_stands_twice_or_is_of_another_type_is_refused(run: Path, office: Office) -> None:
    digests = found_in(run).contents.digests
    result = signed(
        digests, TEST_RESULT, gate_result({"a": True}, "2026-11-30T12:00:00Z", []), office.certifier
    )
    lay_bundle(run, [result, result])
    with pytest.raises(SignatureError, match="each statement once"):
        read_bundle(run / BUNDLE, office.ring, digests)
    lay_bundle(run, [signed(digests, "https://example.org/x", {}, office.certifier)])
    with pytest.raises(SignatureError, match="a certificate, a test result or a provenance"):
        read_bundle(run / BUNDLE, office.ring, digests)
    lay_bundle(run, [sign("text/plain", result.payload, [office.certifier])])
    with pytest.raises(SignatureError, match=r"of the type application/vnd\.in-toto\+json"):
        read_bundle(run / BUNDLE, office.ring, digests)


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"predicateType": 3}', b"[" * 9000])
def test_a_payload_that_is_no_statement_is_one_sentence(run: Path, office: Office, payload: bytes) -> None:
    kind = "application/vnd.in-toto+json"
    lay_bundle(run, [sign(kind, payload, [office.certifier])])
    with pytest.raises(SignatureError) as caught:
        read_bundle(run / BUNDLE, office.ring, found_in(run).contents.digests)
    assert "\n" not in str(caught.value)


def test_a_result_failed_when_one_rule_did() -> None:
    told = gate_result({"b": True, "a": False}, "2026-11-30T12:00:00Z", [])
    assert (told["result"], told["failedTests"], told["passedTests"]) == ("FAILED", ["a"], ["b"])


def test_a_second_signature_must_hold_too(run: Path, office: Office, certify: Certify) -> None:
    facts = facts_in(run, TERMS)
    envelopes = issuing.passed(found_in(run), facts, office.certifier)
    both = [sign(each.payload_type, each.payload, [office.certifier, office.stranger]) for each in envelopes]
    lay_bundle(run, both)
    with pytest.raises(SignatureError, match="of a trusted key"):
        read_bundle(run / BUNDLE, office.ring, found_in(run).contents.digests)
    assert office.certifier.public.purpose is Purpose.CERTIFY
