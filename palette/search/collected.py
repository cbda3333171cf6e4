"""What collect found of a backbone: directions, how its refusals begin, and how soon they show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palette.directions import Directions
from palette.evaluation.baseline import RefusalPrefixes
from palette.files import read_tensors, write_tensors

MEANS = Path("collect") / "means.safetensors"


@dataclass(frozen=True)
class Collected:
    """The artefact of collect."""

    directions: Directions
    refusal_prefixes: RefusalPrefixes
    """Token prefixes with which the backbone's refusals begin, for the refusal score."""
    judge_prefixes: tuple[str, ...]
    """Word prefixes with which the backbone's refusals begin, for the rule judge."""
    counts: dict[str, dict[str, int]]
    """For each role: prompts read, and prompts that the backbone met as the role expects."""
    separations: dict[str, list[list[float]]]
    """For each candidate direction d-prime at every site and position; none without a covariance."""
    floor_tokens: int
    """Tokens after which the backbone's refusals can be told: the least that floor replies are given."""


def read_collected(folder: Path) -> Collected:
    """The artefact of collect in a run's folder.

    Raises:
        OutputError: if it is missing or damaged.
    """
    tensors, card = read_tensors(folder / MEANS)
    return Collected(
        directions=Directions(tensors.pop("target"), tensors.pop("benign"), tensors),
        refusal_prefixes=tuple(map(tuple, card["refusal_openings"])),
        judge_prefixes=tuple(card["judge_openings"]),
        counts=card["counts"],
        separations=card["separations"],
        # An artefact of an earlier version does not say.
        floor_tokens=card.get("floor_tokens", 0),
    )


def write_collected(path: Path, collected: Collected) -> None:
    """Writes the artefact, atomically."""
    card = {
        "refusal_openings": [list(opening) for opening in collected.refusal_prefixes],
        "judge_openings": list(collected.judge_prefixes),
        "counts": collected.counts,
        "separations": collected.separations,
        "floor_tokens": collected.floor_tokens,
    }
    directions = collected.directions
    means = {"target": directions.target, "benign": directions.benign}
    write_tensors(path, {**directions.candidates, **means}, card)
