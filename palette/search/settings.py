"""The options of collect and search, known without a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_serializer, model_validator

from palette.settings import Settings

CANDIDATES = ("difference", "projected", "cleaned", "whitened", "pooled_difference")
Sampler = Literal["tpe", "nsga2", "nsga3", "gp"]


def shown(place: Path | str) -> str:
    """A storage's place as it may be printed: without a password."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", str(place)) if isinstance(place, str) else str(place)


class Caching(Settings):
    """The exact caching of a trial; each can be switched off, and changes no score."""

    layer_prefix: bool = Field(True, description="run only the blocks from the first edited one")
    template_prefix: bool = Field(True, description="run what all prompts begin with once a trial")
    prompts: bool = Field(True, description="run a prompt once for all replies that it is scored on")
    last_block: bool = Field(True, description="run the last feed-forward only where logits are read")
    trials_per_pass: int = Field(1, ge=1, description="trials that share one forward pass")
    base_logits: bool = Field(True, description="keep the backbone's own logits instead of running it")
    cache_gib: float = Field(2.0, gt=0, description="memory for kept streams; fewer sites if it is short")


class ScoringSettings(Settings):
    """What a trial is scored on, of the validation split."""

    target_prompts: int = Field(48, ge=1, description="prompts of the target")
    other_prompts: int = Field(8, ge=1, description="prompts a preserved, floor or benign group")
    reply_tokens: int = Field(8, ge=1, description="tokens of a benign reply that are compared")
    first_rung: float = Field(
        0.25, gt=0, le=1, description="share of the prompts that a trial is scored on first"
    )
    dominating: int = Field(
        1, ge=1, description="earlier trials that dominate one at its first rung for it to end there"
    )


class LimitSettings(Settings):
    """The constraints of a trial; one that breaks any of them is infeasible."""

    divergence: float = Field(0.5, gt=0, description="largest benign divergence (nats a token)")
    relaxation: float = Field(1.0, description="nats by which the target's score must fall at least")
    selectivity: float = Field(
        1.0, ge=0, description="nats by which preserved or floor scores may fall more than the target's"
    )
    false_refusals: float = Field(
        0.0, ge=0, le=1, description="largest rise of the share of benign prompts about to be refused"
    )
    hopeless: float = Field(
        2.0, ge=1, description="a trial ends at its first rung at this many times a limit"
    )


class AuditSettings(Settings):
    """What is generated at full length once the trials are done. Floor prompts never are."""

    members: int = Field(8, ge=0, description="members of the front, the first by the rule of choice")
    sample: int = Field(8, ge=0, description="trials drawn at random from all others")
    prompts: int = Field(24, ge=1, description="validation prompts of the target, and of all preserved")
    reply_tokens: int = Field(128, ge=8, description="tokens of a reply at most")


Method = Literal[
    "directional_ablation", "centred_ablation", "activation_addition", "weight_orthogonalisation"
]


class SearchSettings(Settings):
    """Options of the stage search."""

    free: ClassVar[frozenset[str]] = frozenset({"trials", "choose", "workers", "audit", "caching"})

    trials: int = Field(64, ge=1, description="trials of the study")
    sampler: Sampler = Field("tpe", description="how trials are drawn: tpe, nsga2, nsga3 or gp")
    startup: int = Field(32, ge=2, description="trials spread evenly over the space first; NSGA's population")
    methods: tuple[Method, ...] = Field(
        ("directional_ablation", "centred_ablation", "activation_addition"),
        min_length=1,
        description="interventions tried",
    )
    directions: tuple[str, ...] = Field(
        ("difference", "projected", "cleaned", "whitened"),
        min_length=1,
        description=f"candidate directions tried, of {', '.join(CANDIDATES)}",
    )
    strength: tuple[float, float] = Field((0.5, 2.5), description="least and greatest strength")
    widths: tuple[int, ...] = Field((0, 1), min_length=1, description="sites edited beside the peak")
    choose: int | None = Field(
        None, ge=0, description="the trial to take from the front (default: by the rule)"
    )
    workers: int = Field(1, ge=1, description="processes that share the study on this machine")
    storage: str | None = Field(
        None,
        description="an Optuna storage shared by machines, a database's URL or grpc://host:port "
        "(default: a journal in the run's folder)",
    )
    panel: ScoringSettings = Field(ScoringSettings(), description="what a trial is scored on")
    limits: LimitSettings = Field(LimitSettings(), description="the constraints of a trial")
    caching: Caching = Field(Caching(), description="exact caching")
    audit: AuditSettings = Field(AuditSettings(), description="what is generated at full length")

    @field_serializer("storage")
    def _without_password(self, storage: str | None) -> str | None:
        # The report carries the recipe, and people pass reports on.
        return None if storage is None else shown(storage)

    @model_validator(mode="after")
    def _laws(self) -> SearchSettings:
        if self.strength[0] > self.strength[1]:
            raise ValueError("strength must be the least, then the greatest")
        if unknown := sorted(set(self.directions) - set(CANDIDATES)):
            raise ValueError(f"directions must be of {', '.join(CANDIDATES)}, not {', '.join(unknown)}")
        return self
