"""A report of counted outcomes; apart from its schema, which is read without a model's libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from palette.authorisation import Role
from palette.evaluation.counting import changes, tabulate
from palette.evaluation.outcomes import SIDES, Outcome, domains, marked, select, share
from palette.reporting.report import BenignUtility, Report, validated
from palette.reporting.schema import About, Provenance
from palette.reporting.sections import OptionalSections
from palette.statistics.rates import Rate


def assemble(
    about: About,
    outcomes: Sequence[Outcome],
    divergence: Mapping[str, float],
    verdict: Mapping[str, Any],
    provenance: Provenance,
    sections: OptionalSections | None = None,
) -> Report:
    """The report of counted outcomes; ``divergence`` in nats, ``verdict`` from the gate.

    A divergence that is not finite is written as null; the gate has then failed.

    Raises:
        OutputError: if the figures do not make a valid report.
    """
    tables = tabulate(outcomes)
    measured = {name: nats if isfinite(nats) else None for name, nats in divergence.items()}
    apart = {"base": dict.fromkeys(measured, 0.0), "adapted": measured}
    sides = {
        side: {"domains": tables[side], "utility": utility(outcomes, side), "divergence": apart[side]}
        for side in SIDES
    }
    optional = sections or OptionalSections()
    return validated(
        {
            **about.model_dump(),
            **sides,
            "changes": changes(outcomes, provenance.seeds.get("run", 0)),
            "gate": verdict,
            **{name: getattr(optional, name) for name in type(optional).model_fields},
            "provenance": provenance,
        }
    )


def utility(outcomes: Sequence[Outcome], side: str) -> BenignUtility:
    """Correctness on benign prompts: all of them, and each domain that restricts nothing."""
    answers = marked(select(outcomes, Role.BENIGN))
    refusing = {outcome.domain for outcome in outcomes if outcome.role is not Role.BENIGN}

    def right(group: Sequence[Outcome]) -> Rate:
        return share(group, lambda o: getattr(o, f"correct_{side}"))

    general = [domain for domain in domains(answers) if domain not in refusing]
    return BenignUtility(
        benign_correct=right(answers) if answers else None,
        general={domain: right(select(answers, Role.BENIGN, domain=domain)) for domain in general},
    )
