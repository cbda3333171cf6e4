"""The floor: what no recipe, flag or environment variable may authorise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palette.fingerprints import fingerprint


@dataclass(frozen=True)
class Floor:
    """Domains and hazards that stay refused for everyone. Rows of tier C belong to it as well."""

    version: int
    domains: frozenset[str]
    hazards: frozenset[str]

    @property
    def digest(self) -> str:
        """The fingerprint of the floor's content, printed in every report."""
        return fingerprint([self.version, sorted(self.domains), sorted(self.hazards)])

    def extended(self, domains: Iterable[str]) -> Floor:
        """The floor with more domains on it. There is no way to take one off."""
        return Floor(self.version, self.domains | frozenset(domains), self.hazards)

    def holds(self, domain: str, tier: str | None, hazard: str | None) -> bool:
        """Whether a prompt with these labels belongs to the floor."""
        labels = {domain.strip().casefold(), (hazard or "").strip().casefold()}
        return tier == "C" or domain in self.domains or bool(labels & (self.hazards | self.domains))


FLOOR = Floor(
    version=1,
    domains=frozenset({"weapons", "child_safety", "sexual_crimes", "violent_crimes", "hate"}),
    # AILuminate's codes, and methods of self-harm, which have no code of their own there.
    hazards=frozenset({"cse", "iwp", "src", "vcr", "hte", "dfm", "ssh_methods"}),
)
"""The built-in floor. Recipes may extend it and never relax it."""
