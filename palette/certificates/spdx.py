"""A certificate's facts as SPDX 3.0.1, its AI profile: the adapter, its origins, and the gate's figures.

It is not what is signed: it names the certificate, and whoever believes it verifies that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palette.certificates.facts import Facts
from palette.certificates.statements import VERSION

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
PLACE = "https://palette.dev/spdx"
CREATION = "_:creation"
UNKNOWN = "expandedlicensing_NoAssertionLicense"
"""A certificate says nothing of licences: an adapter follows its backbone's."""


def document(facts: Facts, files: Mapping[str, str], certificate: str) -> dict[str, Any]:
    """The document as plain values, JSON-LD; ``files`` are the adapter's digests by name.

    Two calls give the same document.
    """
    place = f"{PLACE}/{certificate}"
    adapter = _adapter(facts, f"{place}#adapter", certificate, place)
    held = [_file(place, name, digest) for name, digest in sorted(files.items())]
    backbone = _model(facts, f"{place}#backbone", facts.backbone.name, facts.backbone.fingerprint, place)
    inputs = [
        _model(facts, f"{place}#input-{number}", "+".join(each.domains), each.digest, place)
        for number, each in enumerate(facts.merge.inputs if facts.merge else (), 1)
    ]
    prompts = {name: _prompts(place, name, digest) for name, digest in facts.prompts.items()}
    train = [prompts[name]["spdxId"] for name in ("train", "validation") if name in prompts]
    test = [prompts["test"]["spdxId"]] if "test" in prompts else []
    related = [
        ("contains", adapter, [each["spdxId"] for each in held]),
        ("dependsOn", adapter, [backbone["spdxId"]]),
        ("descendantOf", adapter, [each["spdxId"] for each in inputs]),
        ("trainedOn", adapter, train),
        ("testedOn", adapter, test),
        *(
            (f"has{kind}License", model, [UNKNOWN])
            for model in (adapter, backbone, *inputs)
            for kind in ("Concluded", "Declared")
        ),
    ]
    relations = [
        _relation(place, number, kind, source["spdxId"], ends)
        for number, (kind, source, ends) in enumerate(related, 1)
        if ends
    ]
    elements = [*_agents(facts, place), adapter, backbone, *inputs, *held, *prompts.values(), *relations]
    whole = _element(place, "document", "SpdxDocument", f"certificate {certificate}")
    whole |= {
        "profileConformance": ["core", "software", "ai"],
        "rootElement": [adapter["spdxId"]],
        "element": [each["spdxId"] for each in elements],
    }
    return {"@context": CONTEXT, "@graph": [_creation(facts, place), whole, *elements]}


def _creation(facts: Facts, place: str) -> dict[str, Any]:
    return {
        "type": "CreationInfo",
        "@id": CREATION,
        "specVersion": "3.0.1",
        "created": facts.issued,
        "createdBy": [f"{place}#approver"],
        "createdUsing": [f"{place}#palette"],
    }


def _element(place: str, part: str, kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "spdxId": f"{place}#{part}", "creationInfo": CREATION, "name": name}


def _agents(facts: Facts, place: str) -> list[dict[str, Any]]:
    return [
        _element(place, "approver", "Agent", facts.approver),
        _element(place, "trainer", "Agent", facts.trainer),
        _element(place, "palette", "Tool", f"palette {VERSION}"),
    ]


def _adapter(facts: Facts, spdx_id: str, certificate: str, place: str) -> dict[str, Any]:
    found = _model(facts, spdx_id, "+".join(facts.domains), facts.adapter, place)
    unmeasured = [f"not measured: {rule.name}" for rule in facts.gate.rules if rule.unmeasured]
    return {
        **found,
        "description": f"LoRA that opens {' and '.join(facts.domains)} alone; certificate {certificate}",
        "validUntilTime": facts.expires,
        "ai_typeOfModel": ["low-rank adapter", "transformer"],
        "ai_domain": list(facts.domains),
        "ai_standardCompliance": ["Palette's gate"],
        "ai_informationAboutApplication": f"for tenants that hold a grant of {', '.join(facts.domains)}",
        "ai_informationAboutTraining": f"recipe {facts.recipe}, by {facts.trainer}",
        "ai_limitation": " ".join([*facts.not_measured, *unmeasured, "It holds for its backbone alone."]),
        "ai_metric": list(_metrics(facts)),
        "ai_metricDecisionThreshold": [_entry(rule.name, f"{rule.limit:g}") for rule in facts.gate.rules],
    }


def _model(facts: Facts, spdx_id: str, name: str, digest: str, place: str) -> dict[str, Any]:
    return {
        "type": "ai_AIPackage",
        "spdxId": spdx_id,
        "creationInfo": CREATION,
        "name": name or digest[:12],
        "software_packageVersion": digest,
        "software_primaryPurpose": "model",
        "software_downloadLocation": f"{place}/{digest}",
        "suppliedBy": f"{place}#approver",
        "releaseTime": facts.issued,
    }


def _metrics(facts: Facts) -> Iterator[dict[str, str]]:
    for side in ("base", "adapted"):
        for domain, kinds in getattr(facts.gate, side).items():
            for kind, cell in kinds.items():
                for measure, rate in cell:
                    if rate is not None:
                        interval = f"[{rate.low:.6f}, {rate.high:.6f}]"
                        yield _entry(f"{side}/{domain}/{kind}/{measure}", f"{rate.k} of {rate.n} {interval}")


def _entry(key: str, value: str) -> dict[str, str]:
    return {"type": "DictionaryEntry", "key": key, "value": value}


def _file(place: str, name: str, digest: str) -> dict[str, Any]:
    return {
        **_element(place, name, "software_File", name),
        "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": digest}],
    }


def _prompts(place: str, name: str, digest: str) -> dict[str, Any]:
    return {
        **_element(place, f"prompts-{name}", "dataset_DatasetPackage", f"prompts/{name}"),
        "dataset_datasetType": ["text"],
        "software_packageVersion": digest,
    }


def _relation(place: str, number: int, kind: str, source: str, ends: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "Relationship",
        "spdxId": f"{place}#relation-{number}",
        "creationInfo": CREATION,
        "relationshipType": kind,
        "from": source,
        "to": list(ends),
    }
