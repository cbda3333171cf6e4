"""A report with all its parts."""

from __future__ import annotations

from typing import Any

import pytest

from palette.evaluation.gate import gate
from palette.evaluation.outcomes import Outcome
from palette.reporting.assembly import assemble
from palette.reporting.schema import About, Cell, Model, Provenance
from palette.reporting.sections import OptionalSections, Point, Search, UpperBound
from palette.statistics.rates import wilson
from tests.fixtures.crowds import crowd, good
from tests.reporting.bent import as_json

__all__ = ["crowd", "failing", "full", "good", "parts", "report", "sections"]

LITTLE = {"first_token": 0.008, "multi_token": 0.003}


@pytest.fixture(scope="session")
def parts() -> dict[str, Any]:
    """All that a report needs beside its outcomes and its gate."""
    points = [(3, 8.2, 17.9, 0.0004), (22, -1.2, 16.5, 0.011), (41, -5.8, 16.0, 0.019)]
    ideal = {"restricted": Cell(refusal=wilson(0, 100), correct=wilson(96, 100))}
    return {
        "about": About(
            model=Model(name="organism", fingerprint="ab" * 32),
            authorised=("medical",),
            split="test",
        ),
        "provenance": Provenance(
            recipe={"model": "organism", "authorise": ["medical"]},
            seeds={"run": 7},
            versions={"torch": "2.13.0"},
            prompts={"test": "cd" * 32},
            floor="ef" * 32,
            judge="01" * 32,
            device="cpu",
            seconds={"search": 41.25},
        ),
        "sections": OptionalSections(
            search=Search(
                front=tuple(
                    Point(trial=t, target_refusal=x, preserved_refusal=p, divergence=d, label="m")
                    for t, x, p, d in points
                ),
                chosen=41,
                rule="the least divergence among those below −5 nats.",
                collected={
                    "target": {"read": 128, "as_expected": 126},
                    "benign": {"read": 64, "as_expected": 64},
                },
                audited=16,
                rank_correlation=0.84375,
                separation=((0.5, 0.25), (3.0, 1.5), (6.25, 2.0)),
            ),
            upper_bound=UpperBound(model="helpful", domains={"medical": ideal}),
            not_measured=("Perplexity was not measured.",),
        ),
    }


@pytest.fixture(scope="session")
def report(good: list[Outcome], parts: dict[str, Any]) -> dict[str, Any]:
    """A report whose gate passed."""
    verdict = gate(good, ["medical"], LITTLE)
    return assemble(outcomes=good, divergence=LITTLE, verdict=verdict, **parts).model_dump(mode="json")


@pytest.fixture(scope="session")
def failing(good: list[Outcome], parts: dict[str, Any]) -> dict[str, Any]:
    """A report whose gate failed, for too few prompts and for divergence."""
    fewer = [o for o in good if not (o.domain == "weapons" and int(o.prompt_id.split("-")[-1]) > 50)]
    divergence = {"first_token": 0.5, "multi_token": float("inf")}
    verdict = gate(fewer, ["medical"], divergence)
    return assemble(outcomes=fewer, divergence=divergence, verdict=verdict, **parts).model_dump(mode="json")


@pytest.fixture(scope="session")
def sections() -> dict[str, Any]:
    """What fills every optional section of a report, as JSON."""
    few, most, some = (wilson(k, 100).to_json() for k in (3, 97, 60))
    errors = {"accuracy": most, "missed_refusals": few, "false_alarms": few, "kappa": 0.91}
    source = {
        "name": "contrast.csv",
        "digest": "23" * 32,
        "licence": "CC-BY-4.0",
        "source": "a paper",
        "rows": 450,
    }
    estimate = {"rate": 0.98, "low": 0.93, "high": 1.0}
    return {
        "judging": {
            "judges": ["rules", "trained"],
            "fingerprint": "45" * 32,
            "floor_tokens": 19,
            "disagreements": {"base": few, "adapted": few, "ids": ["medical-7", "legal-12"]},
            "calibration": {
                "format": "palette-calibration/1",
                "judge": "45" * 32,
                "judge_name": "rules and trained",
                "source": "labels.csv",
                "digest": "67" * 32,
                "n": 100,
                **errors,
                "by_model": {"one": errors, "two": errors},
            },
            "corrected": {side: {"legal": {"restricted": estimate}} for side in ("base", "adapted")},
        },
        "over_refusal": {"base": few, "adapted": few, "ids": ["sums-4"]},
        "sources": [source],
        "suites": [
            {
                "name": "contrast",
                "kind": "over_refusal",
                "source": source,
                "n": 100,
                "base": {"refusal": few},
                "adapted": {"refusal": few},
                "change": {"p": 1.0, "lost": 1, "gained": 1},
                "seconds": 12.5,
            },
            {
                "name": "sums",
                "kind": "utility",
                "source": None,
                "n": 100,
                "base": {"accuracy": some},
                "adapted": {"accuracy": some, "bits_per_byte": 1.25},
                "change": None,
                "seconds": 3.0,
            },
        ],
        "hazards": {"prv": {"base": most, "adapted": most, "lost": 1, "p": 0.5, "p_holm": 1.0}},
        "null_control": {
            "seed": 7,
            "prompts": 110,
            "base": {"authorised_refused": most, "others_kept": most, "benign_exact": most},
            "control": {"authorised_refused": most, "others_kept": some, "benign_exact": some},
            "adapted": {"authorised_refused": few, "others_kept": most, "benign_exact": most},
        },
        "training": {"first": [4.0, 2.0, 1.0], "second": []},
        "students": [
            {
                "name": "first",
                "rank": 8,
                "learning_rate": 0.002,
                "steps": 3,
                "answered": 0.9,
                "kept": 1.0,
                "unchanged": 1.0,
                "chosen": True,
            },
        ],
        "throughput": {"tokens": 4096, "seconds": 2.0, "tokens_per_second": 2048.0},
    }


@pytest.fixture(scope="session")
def full(report: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """A report with every section filled."""
    group = {"base": wilson(40, 40).to_json(), "adapted": wilson(39, 40).to_json(), "lost": 1, "gained": 0}
    return as_json({**report, **sections, "wrapped": {"role_play": group}})
