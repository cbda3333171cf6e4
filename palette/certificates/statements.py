"""Statements of in-toto about one adapter: the certificate, the test result and the provenance.

Each is signed on its own in a DSSE envelope; together they are lines of one bundle. All are about the same
files, by digest, and the latter two name the certificate that they belong to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palette.certificates.facts import Facts
from palette.errors import SignatureError
from palette.fingerprints import canonical
from palette.signing import Envelope, KeyRing, PrivateKey, Purpose, sign, verified

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
CERTIFICATE = "https://palette.dev/certificate/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VERSION = version("palette-llm")
BUILD, BUILDER = "https://palette.dev/build/adapter/v1", "https://palette.dev/builder/local/v1"
OURS = "palette_issued"
"""The field, of our own in others' predicates, that says when a statement was signed."""
ISSUED = {CERTIFICATE: "issued", TEST_RESULT: OURS, PROVENANCE: OURS}
FINGERPRINT = "paletteFingerprint"
"""The name of a digest that is SHA-256 of canonical content and not of one file's bytes."""
BUNDLE, FAILED = "certificate.intoto.jsonl", "failed.intoto.jsonl"
LARGEST = 8 << 20
"""Characters of a bundle at most."""


def subjects(digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """The files of an adapter as every statement names them."""
    return [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)]


def signed(digests: Mapping[str, str], kind: str, predicate: Mapping[str, Any], key: PrivateKey) -> Envelope:
    """A signed statement about an adapter's files."""
    statement = {
        "_type": STATEMENT,
        "subject": subjects(digests),
        "predicateType": kind,
        "predicate": dict(predicate),
    }
    return sign(PAYLOAD, canonical(statement).encode(), [key])


def gate_result(rules: Mapping[str, bool], issued: str, used: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The predicate of a test result: the gate's rules by whether each passed; ``used`` is what it is of."""
    return {
        "result": "PASSED" if all(rules.values()) else "FAILED",
        "configuration": [dict(each) for each in used],
        "passedTests": sorted(name for name, passed in rules.items() if passed),
        "warnedTests": [],
        "failedTests": sorted(name for name, passed in rules.items() if not passed),
        OURS: issued,
    }


def provenance(facts: Facts, certificate: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """The predicate of SLSA's provenance: from what an adapter was made, by what; no level is claimed."""
    inputs = facts.merge.inputs if facts.merge else ()
    used = [
        resource(facts.backbone.name, {FINGERPRINT: facts.backbone.fingerprint}),
        *(resource(f"prompts/{name}", {FINGERPRINT: digest}) for name, digest in facts.prompts.items()),
        *(resource("+".join(each.domains), {FINGERPRINT: each.digest}) for each in inputs),
    ]
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {"recipe": facts.recipe, "authorise": list(facts.domains)},
            "internalParameters": {"floor": facts.floor.digest},
            "resolvedDependencies": used,
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": dict(versions)},
            "metadata": {"invocationId": certificate},
            "byproducts": [resource("report.json", {"sha256": facts.report})],
        },
        OURS: facts.issued,
    }


def resource(name: str, digest: Mapping[str, str]) -> dict[str, Any]:
    """A resource descriptor."""
    return {"name": name, "digest": dict(digest)}


def certificate_of(statement: Mapping[str, Any]) -> str | None:
    """The certificate that a test result or a provenance says that it belongs to."""
    predicate = statement["predicate"]
    if statement["predicateType"] == PROVENANCE:
        return str(predicate["runDetails"]["metadata"]["invocationId"])
    used = {each["name"]: each["digest"] for each in predicate["configuration"]}
    return str(used["certificate"]["sha256"]) if "certificate" in used else None


def read_bundle(
    path: Path, ring: KeyRing, digests: Mapping[str, str]
) -> dict[str, tuple[dict[str, Any], Envelope]]:
    """The statements of a bundle by their types, each verified and of exactly these files.

    Raises:
        SignatureError: if one does not hold, is of other files, or stands twice.
    """
    found: dict[str, tuple[dict[str, Any], Envelope]] = {}
    for line in _lines(path):
        envelope = Envelope.read(line)
        kind = _kind(envelope, path)
        content, _ = verified(envelope, ring, Purpose.CERTIFY, PAYLOAD, ["predicate", ISSUED[kind]])
        if kind in found:
            raise SignatureError("a bundle must hold each statement once", got=f"{kind} twice", where=path)
        if content.get("_type") != STATEMENT or content.get("subject") != subjects(digests):
            raise SignatureError(
                "a certificate must be of the files beside it",
                got="one of other files",
                remedy="put them back, or certify the adapter that is there",
                where=path,
            )
        found[kind] = (content, envelope)
    return found


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            text = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise SignatureError(
            "an adapter must have a certificate that can be read",
            got=getattr(error, "strerror", None) or "no text",
            remedy="certify it with palette certify",
            where=path,
        ) from error
    if len(text) > LARGEST:
        raise SignatureError(f"a bundle must have at most {LARGEST} characters", got="more", where=path)
    return text.removesuffix("\n").split("\n")


def _kind(envelope: Envelope, where: Path) -> str:
    """The type of predicate, by which alone nothing is believed yet."""
    try:
        kind = json.loads(envelope.payload)["predicateType"]
        if kind in ISSUED:
            return str(kind)
    except (ValueError, KeyError, TypeError, RecursionError):
        kind = None
    raise SignatureError(
        "a statement must be a certificate, a test result or a provenance",
        got=ascii(kind)[:80],
        where=where,
    )
