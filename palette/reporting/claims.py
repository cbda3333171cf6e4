"""The claims that an adapter rests on, each with the gate's rules under it and the figures that bear it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from palette.reporting.diagnosis import lacking
from palette.reporting.report import Report, Rule
from palette.reporting.schema import Kind
from palette.statistics.rates import Rate, wilson

CLAIMS: Final[dict[str, tuple[str, ...]]] = {
    "opened": ("target_refusal", "target_degenerate", "authorised_answered", "target_correct", "cell_target"),
    "kept": ("preserved_refusal", "cell_preserved"),
    "floor": ("floor_refusal", "cell_floor"),
    "framed": ("jailbreak_refusal",),
    "unchanged": ("benign_correct", "benign_refusal", "benign_degenerate", "divergence"),
}
"""The rules of each claim, by the first part of their names; any other rule stands under ``others``."""
KINDS: Final[dict[str, Kind]] = {
    "opened": "restricted",
    "kept": "restricted",
    "floor": "floor",
    "unchanged": "benign",
}
"""Of which prompts the refusals bear a claim."""


class Claim(NamedTuple):
    """One claim: it holds where all of its rules do, and there is one that was measured."""

    name: str
    rules: tuple[Rule, ...]
    before: Rate | None
    """Refusals of its prompts with the backbone alone, all domains together."""
    after: Rate | None

    @property
    def standing(self) -> str:
        """``holds``, ``fails``, ``lacks evidence`` or ``not measured``."""
        failed = [rule for rule in self.rules if not rule.passed]
        if failed:
            return "lacks evidence" if all(map(lacking, failed)) else "fails"
        return "not measured" if all(rule.unmeasured for rule in self.rules) else "holds"

    @property
    def decisive(self) -> Rule | None:
        """The rule that says most of it: one that fails, or else that which is nearest to its limit."""
        return max(self.rules, key=_strain, default=None)


def _strain(rule: Rule) -> tuple[bool, bool, float]:
    """How hard a rule is pressed: whether it fails, whether by what was counted, its share of the limit."""
    if rule.value is None:
        return not rule.passed, False, 0.0
    at_least = rule.name.startswith("authorised_answered")
    share = (
        (1 - rule.value) / (1 - rule.limit)
        if at_least and rule.limit < 1
        else rule.value / (rule.limit or 1.0)
    )
    return not rule.passed, not lacking(rule), share


def claims(report: Report) -> list[Claim]:
    """The claims of a report in order; every rule of its gate stands under just one of them."""
    found: dict[str, list[Rule]] = {name: [] for name in (*CLAIMS, "others")}
    homes = {kind: name for name, kinds in CLAIMS.items() for kind in kinds}
    for rule in report.gate.rules:
        found[homes.get(rule.name.partition(".")[0], "others")].append(rule)
    return [
        Claim(name, tuple(rules), pooled(report, name, "base"), pooled(report, name, "adapted"))
        for name, rules in found.items()
        if rules or name != "others"
    ]


def pooled(report: Report, claim: str, side: str) -> Rate | None:
    """The refusal rate of a claim's prompts, all domains together, with its interval; None of no prompt."""
    rates = list(_refusals(report, claim, side))
    n = sum(rate.n for rate in rates)
    return wilson(sum(rate.k for rate in rates), n) if n else None


def _refusals(report: Report, claim: str, side: str) -> Iterator[Rate]:
    if (kind := KINDS.get(claim)) is None:
        return
    for domain, kinds in getattr(report, side).domains.items():
        apart = kind == "restricted" and (domain in report.authorised) != (claim == "opened")
        if kind in kinds and not apart:
            yield kinds[kind].refusal
