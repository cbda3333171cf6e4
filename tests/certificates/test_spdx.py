"""SPDX 3.0.1: read by the bindings that are made from its own model, and what its AI profile demands."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from palette.certificates.spdx import document
from tests.certificates.conftest import facts_in, found_in
from tests.certificates.test_cyclonedx import merged

__all__ = ["merged"]

Told = dict[str, Any]
ID = "9" * 64
REQUIRED = (
    *("software_downloadLocation", "software_packageVersion", "software_primaryPurpose"),
    *("releaseTime", "suppliedBy"),
)
"""What the AI profile demands of a package."""


def made(folder: Path) -> Told:
    return document(facts_in(folder), found_in(folder).contents.digests, ID)


def of_type(told: Told, kind: str) -> list[Told]:
    return [each for each in told["@graph"] if each["type"] == kind]


def objects(told: Told) -> list[Any]:
    """The objects that the model's own bindings read; what breaks the model is an error."""
    spdx = pytest.importorskip("spdx_python_model").v3_0_1
    found = spdx.SHACLObjectSet()
    spdx.JSONLDDeserializer().read(io.BytesIO(json.dumps(told).encode()), found)
    assert not found.missing_ids
    return list(found.objects)


def test_the_model_s_own_bindings_read_all_of_it(run: Path, merged: Path) -> None:
    for folder in (run, merged):
        told = made(folder)
        assert len(objects(told)) >= len(told["@graph"])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("ai_AIPackage", "software_primaryPurpose", "certificate"),
        ("ai_AIPackage", "certificate", ID),
        ("ai_AIPackage", "releaseTime", "yesterday"),
        ("Relationship", "relationshipType", "opens"),
        ("CreationInfo", "specVersion", "three"),
    ],
)
def test_the_bindings_find_what_the_model_has_not(run: Path, kind: str, field: str, value: str) -> None:
    told = made(run)
    of_type(told, kind)[0][field] = value
    with pytest.raises(Exception, match=r".+"):
        objects(told)


def test_every_model_has_what_the_ai_profile_demands(run: Path, merged: Path) -> None:
    for folder, models in ((run, 2), (merged, 4)):
        told = made(folder)
        packages = of_type(told, "ai_AIPackage")
        assert len(packages) == models
        relations = [(each["from"], each["relationshipType"]) for each in of_type(told, "Relationship")]
        for package in packages:
            assert all(package.get(name) for name in REQUIRED)
            for kind in ("hasConcludedLicense", "hasDeclaredLicense"):
                assert relations.count((package["spdxId"], kind)) == 1
        assert set(of_type(told, "SpdxDocument")[0]["profileConformance"]) == {"core", "software", "ai"}


def test_it_says_the_same_as_the_certificate(run: Path, report: Told) -> None:
    told = made(run)
    adapter = of_type(told, "ai_AIPackage")[0]
    limits = {each["key"]: float(each["value"]) for each in adapter["ai_metricDecisionThreshold"]}
    assert limits == pytest.approx({rule["name"]: rule["limit"] for rule in report["gate"]["rules"]})
    metrics = {each["key"]: each["value"] for each in adapter["ai_metric"]}
    rate = report["adapted"]["domains"]["legal"]["floor"]["refusal"]
    assert metrics["adapted/legal/floor/refusal"].startswith(f"{rate['k']} of {rate['n']} [")
    files = {each["name"]: each["verifiedUsing"][0]["hashValue"] for each in of_type(told, "software_File")}
    assert files == found_in(run).contents.digests
    assert adapter["ai_domain"] == ["medical"]


def test_every_element_is_of_the_document_and_has_one_id(run: Path, merged: Path) -> None:
    for folder in (run, merged):
        told = made(folder)
        ids = [each["spdxId"] for each in told["@graph"] if "spdxId" in each]
        assert len(ids) == len(set(ids))
        (whole,) = of_type(told, "SpdxDocument")
        assert set(whole["element"]) == set(ids) - {whole["spdxId"]}
