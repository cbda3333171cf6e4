"""The gate of a certificate, reckoned once more from the figures in it whenever it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from palette.certificates.facts import Facts
from palette.errors import SignatureError
from palette.evaluation.settings import GateSettings
from palette.reporting.report import Gate, Report, Side
from palette.reporting.schema import Provenance
from palette.reporting.verification import contradicted

Part = TypeVar("Part", bound=BaseModel)


def looser(limits: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The limits that are wider than the gate's own, each with its own; one that is missing is the widest."""
    own = GateSettings().model_dump()
    stated = {name: limits.get(name, float("inf")) for name in own}
    return {name: (stated[name], own[name]) for name in own if not stated[name] <= own[name]}


def require_recounted(facts: Facts, where: Path) -> None:
    """Returns nothing: the figures of a certificate pass the gate, by limits as narrow as its own.

    A signature says who certified, and not that they could count.

    Raises:
        SignatureError: if a rule does not hold, is missing, or has a wider limit.
    """
    if wider := looser(facts.gate.limits):
        name, (stated, own) = next(iter(wider.items()))
        law = "a certificate needs the gate's own limits, or narrower ones"
        raise SignatureError(law, got=f"{name} = {stated:g}, more than {own:g}", where=where)
    if broken := contradicted(_report(facts)):
        raise SignatureError(
            "the gate of a certificate must follow from its figures",
            got=f"a pass of {', '.join(broken)}",
            remedy="do not believe who signed it before they explain",
            where=where,
        )


def _report(facts: Facts) -> Report:
    """As much of a report as the gate is reckoned from; the rest is not there."""
    gate = facts.gate
    nothing = gate.divergence.model_copy(update={"first_token": 0.0, "multi_token": 0.0})
    base, adapted = (
        _part(Side, domains=cells, divergence=nats)
        for cells, nats in ((gate.base, nothing), (gate.adapted, gate.divergence))
    )
    recipe = {"evaluate": {"gate": dict(gate.limits)}}
    return _part(
        Report,
        authorised=facts.domains,
        split=gate.split,
        base=base,
        adapted=adapted,
        changes=gate.changes,
        wrapped=gate.wrapped,
        cells=gate.cells,
        gate=_part(Gate, passed=True, rules=gate.rules),
        provenance=_part(Provenance, recipe=recipe),
    )


def _part(kind: type[Part], **known: Any) -> Part:
    """As much of a model as is known, which nothing else is asked of."""
    return kind.model_construct(**known)
