"""A certificate issued: the gate reckoned again from the report's figures and signed; or its failure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from palette.adapters.lora import Adapter
from palette.authorisation.floor import FLOOR, Floor
from palette.certificates.contents import Contents
from palette.certificates.facts import (
    FORMAT,
    LONGEST_DAYS,
    Canary,
    CertifiedBackbone,
    CertifiedFloor,
    CertifiedGate,
    CertifiedMerge,
    Facts,
    MergedFrom,
)
from palette.certificates.reading import require_apart, require_own, unfit
from palette.certificates.recount import looser
from palette.certificates.statements import (
    CERTIFICATE,
    PROVENANCE,
    TEST_RESULT,
    gate_result,
    provenance,
    resource,
    signed,
)
from palette.errors import AdapterError, SignatureError
from palette.evaluation.outcomes import Outcome, read_outcomes
from palette.fingerprints import fingerprint
from palette.models import display_name
from palette.reporting.report import REPORT, Report, read_report
from palette.reporting.sections import Judging
from palette.reporting.verification import contradicted, gate_limits
from palette.signing import Envelope, PrivateKey
from palette.signing.instants import told

TrainerKnownBy = Literal["statement", "owner of the weights' file"]


@dataclass(frozen=True)
class Terms:
    """Who answers for a certificate, who trained the adapter, and how long it is to hold."""

    approver: str
    trainer: str
    trainer_known_by: TrainerKnownBy
    days: int
    issued: datetime


@dataclass(frozen=True)
class Measured:
    """What is certified: the bytes, the adapter that they are, and what was measured of it."""

    contents: Contents
    adapter: Adapter
    report: Report
    digest: str
    """SHA-256 of the report's file."""
    outcomes: Sequence[Outcome]

    @property
    def rules(self) -> dict[str, bool]:
        """The gate's rules by whether they hold, reckoned again: what a report says of them is not enough."""
        stated = {rule.name: rule.passed for rule in self.report.gate.rules}
        return {**stated, **dict.fromkeys(contradicted(self.report, self.outcomes), False)}


def measured(contents: Contents) -> Measured:
    """The adapter of some bytes with the report beside them, which is of it.

    Raises:
        AdapterError: if there is no report, or it is of another adapter.
        OutputError: if the report or the outcomes cannot be read.
    """
    folder = contents.where
    path = folder / REPORT
    if not path.is_file():
        raise AdapterError(
            "an adapter must be measured before it is certified",
            got=f"no {REPORT}",
            remedy="run palette evaluate on it",
            where=folder,
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    report, adapter = read_report(folder), contents.adapter()
    if digest != hashlib.sha256(path.read_bytes()).hexdigest():
        raise AdapterError("a report must not change while it is read", got="another one", where=path)
    if report.provenance.adapter != adapter.digest:
        stated = report.provenance.adapter
        raise AdapterError(
            "the report must be of the adapter beside it",
            got=f"one of {stated[:12] if stated else 'no adapter'}, and the adapter {adapter.digest[:12]}",
            remedy="run palette evaluate on it again",
            where=folder,
        )
    return Measured(contents, adapter, report, digest, read_outcomes(folder))


def require_certifiable(found: Measured) -> Floor:
    """The floor above which an adapter was measured, if what was measured can be certified at all.

    Raises:
        AdapterError: if it was measured on another split than the test split, by looser limits than the
            gate's own, or above another floor than the built-in one and its recipe's.
    """
    report, where = found.report, found.contents.where
    again = "run palette evaluate on it again"
    if report.split != "test":
        law = "a certificate is of what was measured on the test split"
        raise AdapterError(law, got=repr(report.split), remedy=again, where=where)
    for name, (stated, own) in looser(gate_limits(report).model_dump()).items():
        raise AdapterError(
            "a certificate needs the gate's own limits, or narrower ones",
            got=f"evaluate.gate.{name} = {stated:g}, more than {own:g}",
            remedy="leave it out and evaluate again",
            where=where,
        )
    added = report.provenance.recipe.get("floor") or ()
    floor = FLOOR.extended(added if isinstance(added, list) else ())
    if floor.digest != report.provenance.floor:
        raise AdapterError(
            "an adapter must have been measured above the built-in floor",
            got=f"one of the digest {ascii(report.provenance.floor)[1:13]}",
            remedy=again,
            where=where,
        )
    return floor


def facts_of(found: Measured, floor: Floor, terms: Terms, canaries: Sequence[Canary] = ()) -> Facts:
    """What a certificate of a measured adapter says.

    Raises:
        SignatureError: if it cannot say so.
    """
    report, recipe = found.report, found.report.provenance.recipe
    begins = told(terms.issued)
    try:
        return Facts(
            format=FORMAT,
            issued=begins,
            not_before=begins,
            expires=told(terms.issued + timedelta(days=terms.days)),
            domains=tuple(sorted(set(report.authorised))),
            approver=terms.approver.strip(),
            trainer=terms.trainer.strip(),
            trainer_known_by=terms.trainer_known_by,
            adapter=found.adapter.digest,
            backbone=CertifiedBackbone(
                name=display_name(report.model.name),
                fingerprint=report.model.fingerprint,
                thinking=recipe.get("thinking", "closed"),
                system=recipe.get("system", ""),
            ),
            floor=CertifiedFloor.of(floor),
            recipe=fingerprint(recipe),
            prompts=report.provenance.prompts,
            report=found.digest,
            judge=report.provenance.judge,
            judging=_judging(report),
            null_control=report.null_control,
            merge=_merge(found.adapter),
            gate=_gate(found),
            canaries=tuple(canaries),
            not_measured=report.not_measured,
        )
    except ValidationError as error:
        raise unfit(error, found.contents.where) from error


def _judging(report: Report) -> Judging | None:
    """The judges and their error, without the ids of prompts, which are the operator's own business."""
    found = report.judging
    if found is None or found.disagreements is None:
        return found
    return found.model_copy(update={"disagreements": found.disagreements.model_copy(update={"ids": ()})})


def _gate(found: Measured) -> CertifiedGate:
    report = found.report
    return CertifiedGate(
        rules=tuple(rule.model_copy(update={"ids": ()}) for rule in report.gate.rules),
        limits=gate_limits(report).model_dump(),
        counted_from="outcomes" if found.outcomes else "cells",
        split="test",
        base=report.base.domains,
        adapted=report.adapted.domains,
        changes=report.changes,
        wrapped=report.wrapped,
        cells=report.cells,
        divergence=report.adapted.divergence,
    )


def _merge(adapter: Adapter) -> CertifiedMerge | None:
    """How an adapter was merged, as its header says; None of one that was not."""
    members = adapter.card.get("parents")
    if not isinstance(members, list) or not members:
        return None
    inputs = tuple(
        MergedFrom(digest=each["digest"], domains=tuple(each["domains"]), weight=each["weight"])
        for each in members
    )
    return CertifiedMerge(method=str(adapter.card.get("method")), inputs=inputs)


def passed(found: Measured, facts: Facts, key: PrivateKey) -> list[Envelope]:
    """The statements of a certificate: itself, its test result and its provenance.

    Raises:
        SignatureError: if the trainer approves or certifies it, the header says something else, or a rule
            of the gate does not hold.
    """
    require_apart(facts.trainer, facts.approver, key.public.holder)
    require_own(found.contents, facts)
    # Here too, where it is signed: nothing on the way to this line can be left out and still sign.
    if failed := sorted(name for name, holds in found.rules.items() if not holds):
        raise SignatureError("only an adapter that passes the gate is certified", got=f"{failed[0]} failed")
    digests = found.contents.digests
    certificate = signed(digests, CERTIFICATE, facts.model_dump(mode="json"), key)
    used = [resource("certificate", {"sha256": certificate.digest}), *_used(found)]
    versions = {"palette": found.report.provenance.versions.get("palette", "unknown")}
    return [
        certificate,
        signed(digests, TEST_RESULT, gate_result(found.rules, facts.issued, used), key),
        signed(digests, PROVENANCE, provenance(facts, certificate.digest, versions), key),
    ]


def failed(found: Measured, terms: Terms, key: PrivateKey) -> Envelope:
    """The statement that an adapter failed the gate: a test result alone, which certifies nothing."""
    result = gate_result(found.rules, told(terms.issued), _used(found))
    return signed(found.contents.digests, TEST_RESULT, result, key)


def _used(found: Measured) -> list[Mapping[str, Any]]:
    return [resource(str(REPORT), {"sha256": found.digest})]


def require_days(days: int) -> int:
    """The days that a certificate is to hold.

    Raises:
        SignatureError: if they are none, or too many.
    """
    if not 1 <= days <= LONGEST_DAYS:
        raise SignatureError(f"a certificate must hold for 1 to {LONGEST_DAYS} days", got=days)
    return days


def trainer_of(path: Path, stated: str | None) -> tuple[str, TrainerKnownBy]:
    """Who trained an adapter: who is named, or else the account that owns the weights' file.

    Raises:
        SignatureError: if nobody is named, and the owner has no name here.
    """
    if stated is not None and stated.strip():
        return stated, "statement"
    try:
        return path.owner(), "owner of the weights' file"
    except (KeyError, NotImplementedError, OSError) as error:
        raise SignatureError(
            "a certificate must name who trained the adapter",
            got="an owner without a name",
            remedy="name them with --trainer",
            where=path,
        ) from error
