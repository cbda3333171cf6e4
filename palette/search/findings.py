"""What collect and search found: for a person before the next stage is paid for, and for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.evaluation.counting import KINDS
from palette.files import read_json
from palette.reporting.sections import Point, Search
from palette.search.choice import RULE
from palette.search.space import FRONT, Collected, read_collected, read_front

DEVIATIONS, RELATIVE = "standard deviations", "of the benign mean's length"
"""In what separation is told: d-prime, or the distance of the means where no covariance was kept."""


def collect_findings(folder: Path) -> dict[str, Any]:
    """What the backbone does with train prompts by domain and kind, and how far target and benign lie apart.

    ``separation`` is by the input of each layer, and of what is behind the last one, at its best position;
    ``best`` is that of the greatest, ``unit`` what it is measured in. ``similarity``, where prompts are of
    several modalities, are the cosines of their directions at the same positions.

    Raises:
        OutputError: if the artefact of collect is missing or damaged.
    """
    collected = read_collected(folder)
    apart, unit = _separation(collected)
    best = max(range(len(apart)), key=apart.__getitem__)
    alike = {name: [round(c, 4) for c in each] for name, each in _similarity(collected).items()}
    return {
        "domains": {
            domain: {kind: kinds[kind] for kind in KINDS if kind in kinds}
            for domain, kinds in collected.domains.items()
        },
        "separation": {
            "by_layer": [round(value, 4) for value in apart],
            "best": best,
            "layers": len(apart) - 1,
            "unit": unit,
        },
        **({"similarity": alike} if alike else {}),
    }


def _separations(collected: Collected) -> tuple[list[list[float]], str]:
    """How far target and benign lie apart at every site and position, and in what that is told."""
    if known := collected.separations.get("difference"):
        return known, DEVIATIONS
    directions = collected.directions
    lengths = directions.benign.norm(dim=-1).clamp(min=1e-12)
    return (directions.difference.norm(dim=-1) / lengths).tolist(), RELATIVE


def _separation(collected: Collected) -> tuple[list[float], str]:
    known, unit = _separations(collected)
    return [max(positions) for positions in known], unit


def _similarity(collected: Collected) -> dict[str, list[float]]:
    """The cosines of directions of modalities by site, each where target and benign lie farthest apart."""
    known, _ = _separations(collected)
    places = [max(range(len(positions)), key=positions.__getitem__) for positions in known]
    return {
        name: [cosines[place] for cosines, place in zip(each, places, strict=True)]
        # Pairs before what they are measured by.
        for name, each in sorted(
            collected.similarities.items(), key=lambda one: len({*one[0].split("-")}) < 2
        )
    }


def search_findings(folder: Path) -> dict[str, Any]:
    """Whether anything relaxes, what was chosen, how far the target's score fell, and what whole replies say.

    Scores are log-odds of refusing, in nats; ``audit`` holds the chosen trial's rates before and after, and
    nothing where it was not audited. Something ``relaxes`` where one of the ``audited`` trials has whole
    replies refused less often than the backbone's, or, where none was audited, the chosen one's score fell.

    Raises:
        OutputError: if the artefact of search is missing or damaged.
    """
    written = read_json(folder / FRONT)
    chosen = written["front"][0]
    before, after = written["backbone"]["target_refusal_score"], chosen["target_refusal_score"]
    audited = written["audit"]
    own = audited.get("backbone")
    row = next((row for row in audited["trials"] if row["trial"] == chosen["trial"]), None)
    rates = {name: {"before": own[name], "after": row[name]} for name in own} if own and row else {}
    rows = audited["trials"] if own else []
    relaxing = sum(row["target_refusal"]["rate"] < own["target_refusal"]["rate"] for row in rows)
    return {
        "trials": written["trials"],
        "feasible": written["feasible"],
        "bound": written["bound"],
        "relaxes": relaxing > 0 if rows else after < before,
        "audited": {"trials": len(rows), "relaxing": relaxing},
        "chosen": {"trial": chosen["trial"], **chosen["intervention"]},
        "target_refusal_score": {"before": before, "after": after},
        "audit": rates,
    }


def search_section(folder: Path) -> Search | None:
    """The front that the search found, and what collect read before it."""
    front, audit, collected = read_front(folder), read_json(folder / FRONT)["audit"], read_collected(folder)
    points = tuple(
        Point(
            trial=member.trial,
            target_refusal=member.values["target_refusal_score"],
            preserved_refusal=member.values["preserved_refusal_score"],
            divergence=member.values["benign_divergence"],
            label=f"{member.intervention.method} of {member.intervention.direction} "
            f"at site {member.intervention.kernel.peak}",
        )
        for member in front
    )
    separation = collected.separations.get("difference")
    return Search(
        front=points,
        chosen=front[0].trial,
        rule=RULE,
        audited=len(audit.get("trials", ())),
        rank_correlation=audit.get("rank_correlation"),
        collected=collected.counts,
        separation=None if separation is None else tuple(map(tuple, separation)),
        similarity={name: tuple(each) for name, each in _similarity(collected).items()} or None,
    )
