"""What a report says beside the figures: where they come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from palette.adapters.lora import Adapter
from palette.backbones import Backbone
from palette.judging.judge import Judge
from palette.prompts import Source
from palette.reporting.schema import Point, Provenance, Search
from palette.run import Run
from palette.search.choice import RULE, Member

LIBRARIES = ("torch", "transformers", "peft", "optuna", "safetensors", "numpy")


@dataclass(frozen=True)
class Context:
    """What evaluate is told of the run that it is part of."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    front: Sequence[Member] = ()
    audit: Mapping[str, Any] = field(default_factory=dict)
    """What the search's audit found."""
    separation: Sequence[Sequence[float]] | None = None
    """d-prime of the difference in means at every site and position."""
    collected: Mapping[str, Mapping[str, int]] | None = None
    upper_bound: Backbone | None = None
    sources: Sequence[Source] = ()
    """The files that the prompts come from."""


def provenance(run: Run, judge: Judge, context: Context, adapter: Adapter | None) -> Provenance:
    """Backbone, prompts, floor, judge, libraries and recipe of a report."""
    prompts = run.prompts
    return Provenance(
        recipe=dict(context.recipe),
        seeds={"run": run.seed},
        versions={
            "palette": version("palette-llm"),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        prompts={name: prompts.split(name).fingerprint for name in ("train", "validation", "test")},
        floor=run.authorisation.floor.digest,
        judge=judge.fingerprint,
        device=str(run.backbone.model.device),
        seconds=dict(context.seconds),
        adapter=adapter.digest if adapter else None,
    )


def searched(context: Context) -> Search | None:
    """The front that the search found, where there was a search."""
    if not context.front:
        return None
    front, audit = context.front, context.audit
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
    return Search(
        front=points,
        chosen=front[0].trial,
        rule=RULE,
        audited=len(audit.get("trials", ())),
        rank_correlation=audit.get("rank_correlation"),
        collected=None if context.collected is None else {k: dict(v) for k, v in context.collected.items()},
        separation=None if context.separation is None else tuple(map(tuple, context.separation)),
    )
