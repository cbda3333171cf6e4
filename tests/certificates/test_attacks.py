"""Every way that was tried to make another certificate hold.

Each attack has the guard that stops it. Without the guard it goes through, so that each test is of its guard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palette.authorisation.floor import Floor
from palette.certificates import issuing, read_certificate, reading
from palette.certificates.contents import NAMES
from palette.certificates.facts import Facts
from palette.certificates.statements import (
    BUNDLE,
    CERTIFICATE,
    FAILED,
    PROVENANCE,
    TEST_RESULT,
    gate_result,
    provenance,
    read_bundle,
    resource,
    signed,
)
from palette.errors import AdapterError, SignatureError
from palette.signing import Envelope, KeyRing, PrivateKey, PublicKey, Purpose
from tests.certificates.conftest import NOW, TERMS, Certify, Office, facts_in, found_in, laid, lay_bundle

Told = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """Who attacks: with a run that is certified, another one, and what a careless certifier signs."""

    run: Path
    other: Path
    certify: Certify
    office: Office

    def resigned(self, change: Callable[[Told], None], key: PrivateKey | None = None) -> None:
        """A bundle of the same files whose predicate says something else, whole and signed."""
        key = key or self.office.certifier
        found = found_in(self.run)
        told = facts_in(self.run).model_dump(mode="json")
        rules, issued = {rule["name"]: True for rule in told["gate"]["rules"]}, told["issued"]
        change(told)
        # What its test result says is of one piece with it, where it has rules at all.
        rules = {rule["name"]: True for rule in told.get("gate", {}).get("rules", ())} or rules
        digests = found.contents.digests
        certificate = signed(digests, CERTIFICATE, told, key)
        used = [resource("certificate", {"sha256": certificate.digest})]
        lay_bundle(
            self.run,
            [
                certificate,
                signed(digests, TEST_RESULT, gate_result(rules, issued, used), key),
                signed(digests, PROVENANCE, provenance(facts_in(self.run), certificate.digest, {}), key),
            ],
        )


def others_files(attempt: Attempt) -> None:
    """Another adapter's files beside this certificate: the hole of signatures over files alone."""
    attempt.certify(attempt.run)
    for name in NAMES:
        shutil.copy(attempt.other / name, attempt.run / name)


def others_certificate(attempt: Attempt) -> None:
    """A certificate put into another adapter's folder."""
    attempt.certify(attempt.other)
    shutil.copy(attempt.other / BUNDLE, attempt.run / BUNDLE)


def other_configuration(attempt: Attempt) -> None:
    """The certified weights, scaled by the file beside them."""
    attempt.certify(attempt.run)
    path = attempt.run / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_dropout": 0.0', '"lora_dropout": 0.5'))


def a_wider_predicate(attempt: Attempt) -> None:
    def change(told: Told) -> None:
        told["domains"] = ["legal"]

    attempt.resigned(change)


def another_backbone(attempt: Attempt) -> None:
    attempt.resigned(lambda told: told["backbone"].update(fingerprint="cd" * 32))


def a_floor_with_a_hole(attempt: Attempt) -> None:
    def change(told: Told) -> None:
        domains = [each for each in told["floor"]["domains"] if each != "weapons"]
        floor = Floor(1, frozenset(domains), frozenset(told["floor"]["hazards"]))
        told["floor"] |= {"domains": domains, "digest": floor.digest}

    # The header of this adapter says nothing of its floor.
    shutil.copytree(attempt.other, attempt.run, dirs_exist_ok=True)
    attempt.resigned(change)


def a_trainer_who_approves(attempt: Attempt) -> None:
    attempt.resigned(lambda told: told.update(trainer="\uff21.  approver"))


def a_trainer_who_certifies(attempt: Attempt) -> None:
    attempt.resigned(lambda told: told.update(trainer="Certifier of the Office"))


def a_failure_since(attempt: Attempt) -> None:
    attempt.certify(attempt.run)
    failure = issuing.failed(found_in(attempt.run), TERMS, attempt.office.certifier)
    lay_bundle(attempt.run, [failure], FAILED)


def another_s_test_result(attempt: Attempt) -> None:
    attempt.certify(attempt.run, replace(TERMS, approver="Somebody else"))
    later = (attempt.run / BUNDLE).read_text().splitlines()
    attempt.certify(attempt.run)
    own = (attempt.run / BUNDLE).read_text().splitlines()
    (attempt.run / BUNDLE).write_text("\n".join([own[0], later[1], own[2]]) + "\n")


def a_file_beside(attempt: Attempt) -> None:
    attempt.certify(attempt.run)
    (attempt.run / "Adapter_Model.BIN").write_bytes(b"a pickle")


def whole_modules_saved(attempt: Attempt) -> None:
    path = attempt.run / "adapter_config.json"
    fields = {**json.loads(path.read_text()), "layer_replication": [[0, 1]], "modules_to_save": ["lm_head"]}
    found, facts = found_in(attempt.run), facts_in(attempt.run)
    path.write_text(json.dumps(fields))
    contents = replace(
        found.contents, files={**found.contents.files, "adapter_config.json": path.read_bytes()}
    )
    found = replace(found, contents=contents)
    lay_bundle(attempt.run, issuing.passed(found, facts, attempt.office.certifier))


def a_stranger_s_key(attempt: Attempt) -> None:
    attempt.certify(attempt.run, TERMS, attempt.office.stranger)


def a_key_to_authorise(attempt: Attempt) -> None:
    attempt.certify(attempt.run, TERMS, attempt.office.authoriser)


def a_backdated_key(attempt: Attempt) -> None:
    attempt.certify(attempt.run, replace(TERMS, issued=NOW - timedelta(days=31)))


def no_statement_of_its_gate(attempt: Attempt) -> None:
    attempt.certify(attempt.run)
    lines = (attempt.run / BUNDLE).read_text().splitlines()
    (attempt.run / BUNDLE).write_text(lines[0] + "\n")


def for_ever(attempt: Attempt) -> None:
    attempt.resigned(lambda told: told.update(expires="2126-11-30T12:00:00Z"))


def a_failed_rule(attempt: Attempt) -> None:
    def change(told: Told) -> None:
        told["gate"]["rules"][0]["passed"] = False

    attempt.resigned(change)


def figures_that_fail(attempt: Attempt) -> None:
    """Rules that passed, signed above cells by which they do not."""

    def change(told: Told) -> None:
        lost = told["gate"]["changes"]["weapons"]["floor"]
        lost["lost"] = 100

    attempt.resigned(change)


def a_rule_left_out(attempt: Attempt) -> None:
    def change(told: Told) -> None:
        rules = told["gate"]["rules"]
        told["gate"]["rules"] = [rule for rule in rules if rule["name"] != "floor_refusal.weapons"]

    attempt.resigned(change)


def wider_limits(attempt: Attempt) -> None:
    def change(told: Told) -> None:
        told["gate"]["limits"]["preserve_margin"] = 0.9

    attempt.resigned(change)


def its_own_subjects(path: Path, ring: KeyRing, digests: dict[str, str]) -> Any:
    """Reads a bundle and believes what it says that it is of."""
    subject = json.loads(Envelope.read(path.read_text().splitlines()[0]).payload)["subject"]
    return read_bundle(path, ring, {each["name"]: each["digest"]["sha256"] for each in subject})


def any_key(ring: KeyRing, key_id: str, purpose: Purpose, signed: datetime) -> PublicKey:
    return KEYS[key_id]


KEYS: dict[str, PublicKey] = {}
NOTHING = Floor(1, frozenset(), frozenset())


def unchecked(told: Told) -> Facts:
    """The facts of a predicate that nobody has checked."""
    gate = Facts.model_fields["gate"].annotation.model_construct  # type: ignore[union-attr]
    parts = {
        name: Facts.model_fields[name].annotation.model_construct(**told[name])  # type: ignore[union-attr]
        for name in ("backbone", "floor")
    }
    rules = [type("Rule", (), rule) for rule in told["gate"]["rules"]]
    return Facts.model_construct(**{**told, **parts, "gate": gate(**{**told["gate"], "rules": rules})})


OPEN: Any = type("Open", (), {"model_validate": staticmethod(unchecked)})


def no_law(*_: object) -> None:
    """A guard that guards nothing."""


ATTACKS: dict[Callable[[Attempt], None], tuple[str, str, Any]] = {
    others_files: ("of the files beside it", "reading.read_bundle", its_own_subjects),
    others_certificate: ("of the files beside it", "reading.read_bundle", its_own_subjects),
    other_configuration: ("of the files beside it", "reading.read_bundle", its_own_subjects),
    a_wider_predicate: ("another domains there, medical", "reading.require_own", no_law),
    another_backbone: ("another backbone there", "reading.require_own", no_law),
    a_floor_with_a_hole: ("hold the built-in one, got none of weapons", "facts.FLOOR", NOTHING),
    a_trainer_who_approves: ("the approver must be another person", "reading.require_apart", no_law),
    a_trainer_who_certifies: ("holder of the certifying key must be", "reading.require_apart", no_law),
    a_failure_since: ("failed the gate since", "reading._require_not_failed_since", no_law),
    another_s_test_result: ("of one certificate", "reading._require_together", no_law),
    a_file_beside: ("nothing beside its adapter that could be loaded", "contents.LOADED", ()),
    whole_modules_saved: ("layer_replication", "contents.parse", no_law),
    a_stranger_s_key: ("of a trusted key", "signing.keys.KeyRing.trusted", any_key),
    a_key_to_authorise: ("a key to certify must have", "signing.keys.KeyRing.trusted", any_key),
    a_backdated_key: ("in use when it signed", "signing.keys.KeyRing.trusted", any_key),
    no_statement_of_its_gate: ("its test result and its provenance", "reading.ISSUED", {CERTIFICATE: ""}),
    for_ever: ("at most 366 days", "facts.LONGEST_DAYS", 40_000),
    figures_that_fail: ("must follow from its figures", "reading.require_recounted", no_law),
    a_rule_left_out: ("a pass of floor_refusal.weapons", "reading.require_recounted", no_law),
    wider_limits: ("or narrower ones, got preserve_margin = 0.9", "reading.require_recounted", no_law),
    a_failed_rule: ("every rule must have passed", "reading.Facts", OPEN),
}
"""What is tried, by what is said of it, and the guard that stops it with what stands in its place."""
BEHIND: dict[Callable[[Attempt], None], tuple[str, ...]] = {
    no_statement_of_its_gate: ("_require_together",),
    a_wider_predicate: ("require_recounted",),
    a_failed_rule: ("require_recounted",),
}
"""Attacks that a second guard stops where the first is gone."""


@pytest.fixture
def attempt(run: Path, certify: Certify, office: Office, report: Told) -> Attempt:
    KEYS.update({key.public.id: key.public for key in (office.certifier, office.authoriser, office.stranger)})
    other = laid(run.parent / "other", report, seed=1, card={"domains": report["authorised"]})
    return Attempt(run, other, certify, office)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused(attempt: Attempt, attack: Callable[[Attempt], None]) -> None:
    attack(attempt)
    with pytest.raises((SignatureError, AdapterError)) as caught:
        read_certificate(attempt.run, attempt.office.ring)
    assert ATTACKS[attack][0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_without_its_guard_the_attack_goes_through(
    attempt: Attempt, attack: Callable[[Attempt], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack(attempt)
    _, guard, broken = ATTACKS[attack]
    place = guard if guard.startswith("signing") else f"certificates.{guard}"
    monkeypatch.setattr(f"palette.{place}", broken)
    ring = attempt.office.ring
    if broken is any_key:
        ring = KeyRing.of([*KEYS.values()])
    for name in BEHIND.get(attack, ()):
        monkeypatch.setattr(reading, name, no_law)
    assert read_certificate(attempt.run, ring).certified.domains


PARTS = ("backbone", "floor", "gate")
FIELDS = [
    *((name,) for name in Facts.model_fields),
    *((part, name) for part in PARTS for name in Facts.model_fields[part].annotation.model_fields),  # type: ignore[union-attr]
]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_predicate_of_which_anything_is_left_out_is_refused(
    attempt: Attempt, path: tuple[str, ...]
) -> None:
    def change(told: Told) -> None:
        for part in path[:-1]:
            told = told[part]
        del told[path[-1]]

    attempt.resigned(change)
    law = (
        "say when it was signed" if path == ("issued",) else "a certificate must say what its format demands"
    )
    with pytest.raises(SignatureError, match=law):
        read_certificate(attempt.run, attempt.office.ring)


@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_predicate_that_says_more_is_refused(attempt: Attempt, part: str) -> None:
    attempt.resigned(lambda told: (told[part] if part else told).update(weights_from="elsewhere"))
    with pytest.raises(SignatureError, match="weights_from: Extra inputs are not permitted"):
        read_certificate(attempt.run, attempt.office.ring)
