"""A certificate's facts as CycloneDX 1.7: a model card with the figures, and the gate as declarations.

It is not what is signed: it names the certificate, and whoever believes it verifies that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from palette.certificates.facts import Facts
from palette.certificates.statements import VERSION
from palette.reporting.report import Rule

STANDARD = "palette-gate"
CLASS = "machine-learning-model"


def bill_of_materials(facts: Facts, files: Mapping[str, str], certificate: str) -> dict[str, Any]:
    """The document as plain values; ``files`` are the adapter's digests by name.

    Two calls give the same document, whose serial number follows from the certificate's id.
    """
    adapter = _adapter(facts, files, certificate)
    others = [_backbone(facts), *_inputs(facts)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, certificate)}",
        "version": 1,
        "metadata": {
            "timestamp": facts.issued,
            "tools": {"components": [{"type": "application", "name": "palette", "version": VERSION}]},
            "component": adapter,
        },
        "components": others,
        "dependencies": [
            {"ref": adapter["bom-ref"], "dependsOn": [each["bom-ref"] for each in others]},
            *({"ref": each["bom-ref"]} for each in others),
        ],
        "declarations": _declarations(facts, certificate),
        "definitions": {"standards": [_standard(facts)]},
    }


def _adapter(facts: Facts, files: Mapping[str, str], certificate: str) -> dict[str, Any]:
    properties = {
        "certificate": certificate,
        "adapter": facts.adapter,
        "floor": facts.floor.digest,
        "recipe": facts.recipe,
        "not_before": facts.not_before,
        "expires": facts.expires,
        "approver": facts.approver,
        "trainer": facts.trainer,
    }
    return {
        "type": CLASS,
        "bom-ref": f"adapter:{facts.adapter}",
        "name": "+".join(facts.domains),
        "version": facts.adapter[:12],
        "description": f"LoRA that opens {', '.join(facts.domains)} and nothing else",
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for name, digest in sorted(files.items())
        ],
        "properties": [{"name": f"palette:{name}", "value": value} for name, value in properties.items()],
        "modelCard": _model_card(facts),
    }


def _model_card(facts: Facts) -> dict[str, Any]:
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": "low-rank adapter",
            "datasets": [
                {"type": "dataset", "name": f"prompts/{name}", "contents": {"properties": [_digest(digest)]}}
                for name, digest in facts.prompts.items()
            ],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(facts))},
        "considerations": {
            "users": [f"tenants that hold a grant of {', '.join(facts.domains)}"],
            "useCases": [
                f"questions of the domain {domain} that the public may not ask" for domain in facts.domains
            ],
            "technicalLimitations": [*facts.not_measured, "It holds for this backbone alone."],
            "ethicalConsiderations": [
                {
                    "name": "an answer that the floor forbids",
                    "mitigationStrategy": f"the floor stays refused: {', '.join(facts.floor.domains)}",
                }
            ],
        },
    }


def _digest(digest: str) -> dict[str, str]:
    return {"name": "palette:fingerprint", "value": digest}


def _metrics(facts: Facts) -> Iterator[dict[str, Any]]:
    for side in ("base", "adapted"):
        for domain, kinds in getattr(facts.gate, side).items():
            for kind, cell in kinds.items():
                for measure, rate in cell:
                    if rate is not None:
                        yield {
                            "type": measure,
                            "value": f"{rate.rate:.6f}",
                            "slice": f"{side}/{domain}/{kind}, {rate.k} of {rate.n}",
                            "confidenceInterval": {
                                "lowerBound": f"{rate.low:.6f}",
                                "upperBound": f"{rate.high:.6f}",
                            },
                        }


def _backbone(facts: Facts) -> dict[str, Any]:
    return {
        "type": CLASS,
        "bom-ref": f"backbone:{facts.backbone.fingerprint}",
        "name": facts.backbone.name,
        "version": facts.backbone.fingerprint[:12],
        "properties": [_digest(facts.backbone.fingerprint)],
    }


def _inputs(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "type": CLASS,
            "bom-ref": f"adapter:{each.digest}",
            "name": "+".join(each.domains) or each.digest[:12],
            "version": each.digest[:12],
            "properties": [_digest(each.digest), {"name": "palette:weight", "value": f"{each.weight:g}"}],
        }
        for each in (facts.merge.inputs if facts.merge else ())
    ]


def _declarations(facts: Facts, certificate: str) -> dict[str, Any]:
    rules = facts.gate.rules
    return {
        "assessors": [{"bom-ref": "assessor", "thirdParty": False, "organization": {"name": facts.approver}}],
        "attestations": [
            {
                "summary": f"The gate passed by {len(rules)} rules; certificate {certificate}",
                "assessor": "assessor",
                "map": [
                    {
                        "requirement": f"rule:{rule.name}",
                        "claims": [f"claim:{rule.name}"],
                        "conformance": {"score": 1, "rationale": rule.reason},
                        # A pass of nothing measured says nothing.
                        "confidence": {"score": 0 if rule.unmeasured else 1, "rationale": _measured(rule)},
                    }
                    for rule in rules
                ],
            }
        ],
        "claims": [
            {
                "bom-ref": f"claim:{rule.name}",
                "target": "target",
                "predicate": f"{rule.name} is within its limit of {rule.limit:g}",
                "reasoning": rule.reason,
                "evidence": [f"evidence:{rule.name}"],
            }
            for rule in rules
        ],
        "evidence": [
            {
                "bom-ref": f"evidence:{rule.name}",
                "propertyName": rule.name,
                "description": rule.reason,
                "created": facts.issued,
                "expires": facts.expires,
            }
            for rule in rules
        ],
        "targets": {
            "components": [{"type": CLASS, "bom-ref": "target", "name": "+".join(facts.domains)}],
        },
    }


def _measured(rule: Rule) -> str:
    return "not measured" if rule.unmeasured else f"measured: {rule.value:g}"


def _standard(facts: Facts) -> dict[str, Any]:
    return {
        "bom-ref": STANDARD,
        "name": "Palette's gate",
        "version": VERSION,
        "requirements": [
            {"bom-ref": f"rule:{rule.name}", "identifier": rule.name, "text": f"limit {rule.limit:g}"}
            for rule in facts.gate.rules
        ],
    }
