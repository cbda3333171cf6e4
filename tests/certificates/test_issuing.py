"""Certificates issued: the gate reckoned again, who may be whom, and what cannot be certified."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import FLOOR
from palette.certificates import issuing
from palette.certificates.facts import Facts
from palette.certificates.issuing import require_certifiable, require_days, trainer_of
from palette.certificates.reading import same_person
from palette.certificates.recount import require_recounted
from palette.errors import AdapterError, SignatureError
from palette.evaluation.outcomes import Outcome
from palette.judging.judge import Label
from palette.signing import Envelope
from tests.certificates.conftest import TERMS, Office, facts_in, found_in, laid
from tests.reporting.test_verification import seeing
from tests.stages.test_push import passing

__all__ = ["seeing"]

Told = dict[str, Any]


def predicate(envelope: Envelope) -> Told:
    told: Told = json.loads(envelope.payload)["predicate"]
    return told


def bent(folder: Path, change: Any) -> None:
    """Changes the report in a folder."""
    path = folder / "report.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_a_gate_that_failed_is_signed_as_failed_and_certifies_nothing(
    tmp_path: Path, failing: Told, office: Office
) -> None:
    found = found_in(laid(tmp_path / "broken", failing))
    told = predicate(issuing.failed(found, TERMS, office.certifier))
    assert told["result"] == "FAILED"
    assert "floor_refusal.weapons" in told["failedTests"]
    assert told["passedTests"]
    assert "certificate" not in [each["name"] for each in told["configuration"]]
    with pytest.raises(SignatureError, match="only an adapter that passes the gate is certified"):
        issuing.passed(found, facts_in(laid(tmp_path / "good", passing(failing))), office.certifier)


def test_a_pass_that_a_report_only_states_is_not_believed(
    tmp_path: Path, failing: Told, office: Office
) -> None:
    found = found_in(laid(tmp_path / "bent", passing(failing)))
    assert found.report.gate.passed
    assert not found.rules["divergence.first_token"]
    assert not found.rules["floor_refusal.weapons"]
    assert predicate(issuing.failed(found, TERMS, office.certifier))["result"] == "FAILED"


def test_one_who_believes_the_report_is_caught(
    tmp_path: Path, failing: Told, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = laid(tmp_path / "bent", passing(failing))
    facts = facts_in(folder)
    with pytest.raises(SignatureError, match="passes the gate"):
        issuing.passed(found_in(folder), facts, office.certifier)
    monkeypatch.setattr(issuing, "contradicted", lambda *_: [])
    assert len(issuing.passed(found_in(folder), facts, office.certifier)) == 3


def test_outcomes_are_counted_again_where_they_are_kept(
    tmp_path: Path, report: Told, good: list[Outcome]
) -> None:
    kept = laid(tmp_path / "kept", report, outcomes=good)
    assert all(found_in(kept).rules.values())
    assert facts_in(kept).gate.counted_from == "outcomes"
    lost = [replace(o, label_adapted=Label.FULL_COMPLIANCE) if o.domain == "weapons" else o for o in good]
    rules = found_in(laid(tmp_path / "lost", report, outcomes=lost)).rules
    assert not rules["floor_refusal.weapons"]
    assert not rules["figures"]
    assert facts_in(laid(tmp_path / "none", report)).gate.counted_from == "cells"


@pytest.mark.parametrize("limit", ["target_refusal", "floor_margin", "preserve_margin", "divergence"])
def test_looser_limits_than_the_gate_s_own_certify_nothing(run: Path, limit: str) -> None:
    def loosen(told: Told) -> None:
        told["provenance"]["recipe"]["evaluate"] = {"gate": {limit: 0.3}}

    bent(run, loosen)
    with pytest.raises(
        AdapterError, match=rf"own limits, or narrower ones, got evaluate\.gate\.{limit} = 0.3"
    ):
        require_certifiable(found_in(run))


def test_narrower_limits_do(run: Path) -> None:
    def narrow(told: Told) -> None:
        told["provenance"]["recipe"]["evaluate"] = {"gate": {"divergence": 0.04}}

    bent(run, narrow)
    assert require_certifiable(found_in(run)) == FLOOR
    assert facts_in(run).gate.limits["divergence"] == 0.04


def test_another_split_or_another_floor_certifies_nothing(run: Path) -> None:
    bent(run, lambda told: told.update(split="validation"))
    with pytest.raises(AdapterError, match="on the test split, got 'validation'"):
        require_certifiable(found_in(run))
    bent(run, lambda told: told.update(split="test"))
    bent(run, lambda told: told["provenance"].update(floor="ef" * 32))
    with pytest.raises(AdapterError, match="above the built-in floor, got one of the digest efef"):
        require_certifiable(found_in(run))


def test_a_recipe_s_floor_is_in_the_certificate(tmp_path: Path, report: Told) -> None:
    folder = laid(tmp_path / "run", report, card={"domains": ["medical"]})

    def extend(told: Told) -> None:
        told["provenance"]["recipe"]["floor"] = ["finance"]
        told["provenance"]["floor"] = FLOOR.extended(["finance"]).digest

    bent(folder, extend)
    floor = facts_in(folder).floor
    assert set(floor.domains) == FLOOR.domains | {"finance"}
    assert set(floor.hazards) == FLOOR.hazards


def test_a_report_must_be_there_and_of_this_adapter(run: Path, tmp_path: Path, report: Told) -> None:
    bent(run, lambda told: told["provenance"].update(adapter="0" * 64))
    with pytest.raises(AdapterError, match="the report must be of the adapter beside it"):
        found_in(run)
    (run / "report.json").unlink()
    with pytest.raises(AdapterError, match=r"measured before it is certified.*palette evaluate"):
        found_in(run)


def test_a_domain_that_is_on_the_floor_or_unmeasured_is_refused(run: Path) -> None:
    facts = facts_in(run).model_dump(mode="json")
    for domains, said in ((["weapons"], "the floor cannot be"), (["finance"], "no figures of 'finance'")):
        with pytest.raises(ValueError, match=said):
            Facts.model_validate({**facts, "domains": domains})


@pytest.mark.parametrize("name", ["__base__", "../legal", "Medical", "a b", "мedical", "", "legal+medical"])
def test_a_domain_whose_name_peft_or_a_path_could_take_for_more_is_refused(run: Path, name: str) -> None:
    facts = facts_in(run).model_dump(mode="json")
    with pytest.raises(ValueError, match="a domain must be named by"):
        Facts.model_validate({**facts, "domains": [name]})


def test_a_merge_says_of_what_it_was_made(tmp_path: Path, merged_report: Told) -> None:
    parents = [
        {"digest": "12" * 32, "domains": ["legal"], "weight": 1.0},
        {"digest": "34" * 32, "domains": ["medical"], "weight": 0.5},
    ]
    card = {"domains": ["legal", "medical"], "method": "weighted_sum", "parents": parents}
    facts = facts_in(laid(tmp_path / "merged", merged_report, card=card))
    assert facts.domains == ("legal", "medical")
    assert facts.merge is not None
    assert [each.model_dump(mode="json") for each in facts.merge.inputs] == parents


def test_ids_of_prompts_stay_here(tmp_path: Path, report: Told, sections: Told) -> None:
    whole = {
        **copy.deepcopy(report),
        "judging": sections["judging"],
        "null_control": sections["null_control"],
    }
    facts = facts_in(laid(tmp_path / "run", whole))
    text = facts.model_dump_json()
    assert "medical-7" not in text
    assert "medical-target" not in text
    assert facts.judging is not None
    assert facts.judging.calibration is not None
    assert facts.judging.calibration.missed_refusals.k == 3
    assert facts.null_control is not None


@pytest.mark.parametrize("days", [0, -1, 367, 10**9])
def test_days_are_bounded(days: int) -> None:
    with pytest.raises(SignatureError, match="1 to 366 days"):
        require_days(days)


def test_who_trained_is_stated_or_owns_the_weights(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "adapter_model.safetensors"
    assert trainer_of(path, "T. Trainer") == ("T. Trainer", "statement")
    assert trainer_of(path, " ") == (path.owner(), "owner of the weights' file")

    def nameless(_: Path) -> str:
        raise KeyError("uid 4711")

    monkeypatch.setattr(Path, "owner", nameless)
    with pytest.raises(SignatureError, match=r"must name who trained.*--trainer"):
        trainer_of(path, None)


@given(st.text(), st.text())
def test_names_are_one_however_they_are_written(one: str, other: str) -> None:
    assert same_person(one, f"  {one}\t")
    assert same_person("\uff24\uff52.  Böhm", "dr. BÖHM")
    assert same_person(one, other) == same_person(other, one)


def test_the_cells_in_which_requests_stood_are_certified_and_counted_again(
    tmp_path: Path, seeing: Told
) -> None:
    facts = facts_in(laid(tmp_path / "seeing", seeing))
    assert sorted(facts.gate.cells) == ["picture", "text"]
    require_recounted(facts, tmp_path)
    told = facts.model_dump(mode="json")
    told["gate"]["rules"] = [rule for rule in told["gate"]["rules"] if not rule["name"].startswith("cell")]
    with pytest.raises(SignatureError, match=r"a pass of cell_floor\.picture"):
        require_recounted(Facts.model_validate(told), tmp_path)
