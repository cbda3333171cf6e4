"""CycloneDX 1.7: valid by the schema that its own library ships, and the same facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palette.certificates.cyclonedx import bill_of_materials
from tests.certificates.conftest import facts_in, found_in, laid

Told = dict[str, Any]
ID = "9" * 64


def made(folder: Path) -> Told:
    return bill_of_materials(facts_in(folder), found_in(folder).contents.digests, ID)


def problems(told: Told) -> Any:
    """What the strict validator of the reference library has against a document."""
    schema = pytest.importorskip("cyclonedx.schema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_7)
    return validator.validate_str(json.dumps(told))


@pytest.fixture
def merged(tmp_path: Path, merged_report: Told) -> Path:
    parents = [
        {"digest": f"{n}" * 64, "domains": [d], "weight": 1.0} for n, d in ((1, "legal"), (2, "medical"))
    ]
    card = {"domains": ["legal", "medical"], "method": "ties", "parents": parents}
    return laid(tmp_path / "merged", merged_report, card=card)


def test_it_is_valid_by_the_shipped_schema(run: Path, merged: Path) -> None:
    assert problems(made(run)) is None
    assert problems(made(merged)) is None


@pytest.mark.parametrize("place", ["metadata", "declarations", "definitions"])
def test_the_schema_finds_what_does_not_belong(run: Path, place: str) -> None:
    told = made(run)
    told[place]["certificate"] = ID
    assert problems(told) is not None


def test_its_model_card_has_every_figure_with_its_interval(run: Path, report: Told) -> None:
    card = made(run)["metadata"]["component"]["modelCard"]
    metrics = {
        (each["slice"].split(",")[0], each["type"]): each
        for each in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    cells = [
        (f"{side}/{domain}/{kind}", measure, rate)
        for side in ("base", "adapted")
        for domain, kinds in report[side]["domains"].items()
        for kind, cell in kinds.items()
        for measure, rate in cell.items()
    ]
    assert len(cells) == len(metrics)
    for place, measure, rate in cells:
        told = metrics[place, measure]
        assert float(told["value"]) == pytest.approx(rate["rate"], abs=1e-6)
        assert float(told["confidenceInterval"]["upperBound"]) == pytest.approx(rate["high"], abs=1e-6)
        assert told["slice"].endswith(f"{rate['k']} of {rate['n']}")


def test_its_declarations_claim_every_rule_and_say_what_was_not_measured(run: Path, report: Told) -> None:
    told = made(run)
    rules = {rule["name"] for rule in report["gate"]["rules"]}
    declared = told["declarations"]
    (attestation,) = declared["attestations"]
    assert {each["requirement"] for each in attestation["map"]} == {f"rule:{name}" for name in rules}
    assert {each["bom-ref"] for each in declared["claims"]} == {f"claim:{name}" for name in rules}
    assert ID in attestation["summary"]
    refs = [each["bom-ref"] for each in told["definitions"]["standards"][0]["requirements"]]
    assert set(refs) == {f"rule:{name}" for name in rules}


def test_a_merge_depends_on_its_adapters_and_on_the_backbone(merged: Path) -> None:
    told = made(merged)
    adapter = told["metadata"]["component"]["bom-ref"]
    depends = {each["ref"]: each.get("dependsOn", []) for each in told["dependencies"]}
    assert depends[adapter] == [f"backbone:{'ab' * 32}", f"adapter:{'1' * 64}", f"adapter:{'2' * 64}"]


def test_two_calls_give_the_same_document(run: Path) -> None:
    assert made(run) == made(run)
