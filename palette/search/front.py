"""The Pareto front of a search: what internalise teaches by, and the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.directions import Intervention, StrengthKernel
from palette.files import read_json
from palette.search.space import Params

FRONT = Path("search") / "front.json"


@dataclass(frozen=True)
class Member:
    """A member of the Pareto front."""

    trial: int
    intervention: Intervention
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The member as plain values."""
        return {
            "trial": self.trial,
            **dict(self.values),
            "intervention": self.intervention.to_json(),
        }


def read_front(folder: Path) -> list[Member]:
    """The Pareto front in a run's folder, the chosen member first.

    Raises:
        OutputError: if it is missing or damaged.
    """
    found = []
    for member in read_json(folder / FRONT)["front"]:
        values = {k: v for k, v in member.items() if k not in ("trial", "intervention")}
        found.append(Member(member["trial"], intervention_of(member["intervention"]), values))
    return found


def intervention_of(params: Params) -> Intervention:
    """The intervention that a trial's parameters, or a member's plain values, describe."""
    peak = params["site"] if "site" in params else params["peak"]
    kernel = StrengthKernel(peak, params["width"], params["strength"])
    return Intervention(params["method"], params["position"], kernel, params["direction"])
