"""What a certificate says, as one schema: nothing may be left out, and nothing else stands in it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from palette.authorisation.floor import FLOOR, Floor
from palette.authorisation.grants import identifier
from palette.errors import AuthorisationError
from palette.reporting.report import BenignDivergence, Change, Rule
from palette.reporting.schema import Cells, Kind
from palette.reporting.sections import Count, InCell, Judging, NullControl, Wrapped
from palette.settings import Settings, Thinking
from palette.signing.instants import instant, told

FORMAT: Final = "palette-certificate/1"
LONGEST_DAYS = 366
"""Days that a certificate holds at most: models, judges and attacks change within a year."""


def _digest(text: str) -> str:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"a digest must be 64 hexadecimal digits, got {text[:80]!r}")
    return text


def _instant(text: str) -> str:
    return told(instant(text))


def _domain(text: str) -> str:
    try:
        return identifier("a domain", text)
    except AuthorisationError as error:
        raise ValueError(str(error)) from error


Digest = Annotated[str, AfterValidator(_digest)]
Instant = Annotated[str, AfterValidator(_instant)]
Domain = Annotated[str, AfterValidator(_domain)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class CertifiedBackbone(Settings):
    """The backbone: its fingerprint is of configuration, weights, tokenizer and chat template."""

    name: str
    fingerprint: Digest
    thinking: Thinking
    system: str
    """The system prompt behind which it was measured; empty where there was none."""


class CertifiedFloor(Settings):
    """The floor above which it was measured, whole, so that a reader can tell what is on it."""

    digest: Digest
    version: int
    domains: tuple[str, ...]
    hazards: tuple[str, ...]

    @model_validator(mode="after")
    def _holds_the_floor(self) -> CertifiedFloor:
        if self.floor.digest != self.digest:
            raise ValueError("a floor must have the digest of its content")
        missing = (FLOOR.domains - self.floor.domains) | (FLOOR.hazards - self.floor.hazards)
        if missing:
            raise ValueError(f"a floor must hold the built-in one, got none of {', '.join(sorted(missing))}")
        return self

    @property
    def floor(self) -> Floor:
        """The floor itself."""
        return Floor(self.version, frozenset(self.domains), frozenset(self.hazards))

    @classmethod
    def of(cls, floor: Floor) -> CertifiedFloor:
        """A floor as a certificate has it."""
        domains, hazards = tuple(sorted(floor.domains)), tuple(sorted(floor.hazards))
        return cls(digest=floor.digest, version=floor.version, domains=domains, hazards=hazards)


class MergedFrom(Settings):
    """One adapter of a merge."""

    digest: Digest
    domains: tuple[str, ...]
    weight: FiniteFloat


class CertifiedMerge(Settings):
    """How a merged adapter was made."""

    method: str
    inputs: tuple[MergedFrom, ...] = Field(min_length=1)


class CertifiedGate(Settings):
    """The gate: its rules, its limits, and every figure that they follow from."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    limits: dict[str, FiniteFloat]
    counted_from: Literal["outcomes", "cells"]
    """Whether the outcomes of single prompts were counted again, or the counts of the report alone."""
    split: Literal["test"]
    base: Cells
    adapted: Cells
    changes: dict[str, dict[Kind, Change]]
    wrapped: dict[str, Wrapped]
    cells: dict[str, InCell]
    divergence: BenignDivergence

    @model_validator(mode="after")
    def _passed(self) -> CertifiedGate:
        if failed := [rule.name for rule in self.rules if not rule.passed]:
            raise ValueError(f"every rule must have passed, got {failed[0]} that failed")
        return self


class Canary(Settings):
    """A benign prompt with the reply of the backbone with the adapter: greedy, asked alone.

    The two figures tell the adapter from the bare backbone: nats a token that each gives to this reply.
    """

    prompt: tuple[Count, ...] = Field(min_length=1)
    reply: tuple[Count, ...] = Field(min_length=1)
    adapted: FiniteFloat
    base: FiniteFloat


class Facts(Settings):
    """The predicate of a certificate."""

    format: Literal["palette-certificate/1"]
    issued: Instant
    not_before: Instant
    expires: Instant
    domains: tuple[Domain, ...] = Field(min_length=1)
    approver: Name
    trainer: Name
    trainer_known_by: Literal["statement", "owner of the weights' file"]
    adapter: Digest
    backbone: CertifiedBackbone
    floor: CertifiedFloor
    recipe: Digest
    prompts: dict[str, Digest]
    report: Digest
    """SHA-256 of the report.json that these facts were read from."""
    judge: str
    judging: Judging | None
    """The judges and their measured error; None where the report says nothing of them."""
    null_control: NullControl | None
    merge: CertifiedMerge | None
    gate: CertifiedGate
    canaries: tuple[Canary, ...]
    not_measured: tuple[str, ...]

    @model_validator(mode="after")
    def _coherent(self) -> Facts:
        begins, ends = instant(self.not_before), instant(self.expires)
        if begins < instant(self.issued) or not 0 < (ends - begins).total_seconds() <= LONGEST_DAYS * 86_400:
            raise ValueError(f"a certificate must hold for at most {LONGEST_DAYS} days from its issue on")
        if list(self.domains) != sorted(set(self.domains)):
            raise ValueError("its domains must be in order, each once")
        for domain in self.domains:
            if self.floor.floor.holds(domain, None, None):
                raise ValueError(f"the floor cannot be authorised, got {domain!r}")
            if "restricted" not in self.gate.adapted.get(domain, {}):
                raise ValueError(f"every domain must be measured, got no figures of {domain!r}")
        return self
