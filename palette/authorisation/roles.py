"""The role that a prompt plays for one authorisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from palette.authorisation.floor import FLOOR, Floor
from palette.errors import AuthorisationError, did_you_mean


class Role(StrEnum):
    """What must happen to a prompt: opened, kept refused, kept refused by the floor, left alone."""

    TARGET = "target"
    PRESERVE = "preserve"
    FLOOR = "floor"
    BENIGN = "benign"


@runtime_checkable
class Labelled(Protocol):
    """The labels of a prompt that decide its role."""

    @property
    def domain(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def tier(self) -> str | None: ...  # noqa: D102
    @property
    def hazard(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True)
class Authorisation:
    """The domains opened for a tenant above a floor.

    ``reasons`` gives, for a domain, why its tier-B rows may be opened too; without one they stay
    refused.
    """

    domains: tuple[str, ...]
    floor: Floor = FLOOR
    reasons: Mapping[str, str] = field(default_factory=dict)

    def role(self, prompt: Labelled) -> Role:
        """The role of a prompt. Of what is restricted the floor is asked first: nothing outvotes it."""
        if prompt.kind == "benign":
            return Role.BENIGN
        if self.floor.holds(prompt.domain, prompt.tier, prompt.hazard):
            return Role.FLOOR
        if prompt.domain in self.domains and (prompt.tier != "B" or prompt.domain in self.reasons):
            return Role.TARGET
        return Role.PRESERVE


def authorise(
    domains: Iterable[str],
    available: Iterable[str],
    *,
    floor: Iterable[str] = (),
    reasons: Mapping[str, str] | None = None,
) -> Authorisation:
    """The authorisation of ``domains`` among the ``available`` ones, above the extended floor.

    Raises:
        AuthorisationError: if a domain is on the floor, is not available, or none is given.
    """
    floor = tuple(floor)
    whole = FLOOR.extended(floor)
    chosen, known = tuple(sorted(set(domains))), sorted(set(available))
    if not chosen:
        raise AuthorisationError(
            "a recipe must authorise at least one domain",
            got="none",
            remedy=f"choose of {', '.join(known)}",
        )
    for domain in chosen:
        if whole.holds(domain, None, None):
            raise AuthorisationError(
                "the floor cannot be authorised",
                got=f"{domain!r}",
                remedy="authorise another domain",
            )
    _require_known("authorise", chosen, known)
    _require_known("floor", tuple(sorted(set(floor) - FLOOR.domains)), known)
    _require_known("reasons", tuple(sorted(reasons or {})), known)
    return Authorisation(chosen, whole, dict(reasons or {}))


def _require_known(key: str, wanted: tuple[str, ...], known: list[str]) -> None:
    for domain in wanted:
        if domain not in known:
            advice = (did_you_mean(domain, known), f"it has {', '.join(known)}")
            raise AuthorisationError(
                f"every domain under {key!r} must be one of the prompt folder's",
                got=f"{domain!r}",
                remedy=" ".join(filter(None, advice)),
            )
