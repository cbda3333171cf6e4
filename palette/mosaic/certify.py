"""The ordinary gate on one subset of authorising tokens: what an adapter of these domains must pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palette.authorisation import Authorisation, Role
from palette.backbones import reply_logits
from palette.evaluation.divergence import divergence
from palette.evaluation.gate import gate
from palette.evaluation.settings import GateSettings
from palette.evaluation.verdicts import judged
from palette.judging.judge import Judge
from palette.mosaic.mounting import Controlled
from palette.mosaic.requests import Asked, Subset

DIVERGENCE_PROMPTS = 256
"""Benign prompts at most that divergence is measured on, spread evenly."""


def ordinary_gate(
    controlled: Controlled,
    authorisation: Authorisation,
    judge: Judge,
    asked: Asked,
    subset: Subset,
    replies: Sequence[list[int]],
) -> dict[str, Any]:
    """The verdict of ``palette.evaluation.gate`` on the tokens of one subset, without jailbreak wrappers."""
    opened = Authorisation(subset, authorisation.floor, authorisation.reasons)
    roles = [opened.role(row) for row in asked.rows]
    outcomes = judged(controlled, asked.rows, roles, judge, (asked.own, list(replies))).outcomes
    return gate(outcomes, subset, _moved(controlled, asked, subset), GateSettings())


def _moved(controlled: Controlled, asked: Asked, subset: Subset) -> dict[str, float]:
    """Divergence from the backbone on benign prompts, in nats."""
    benign = [i for i, role in enumerate(asked.roles) if role is Role.BENIGN]
    chosen = benign[:: max(1, len(benign) // DIVERGENCE_PROMPTS)]
    prompts = [asked.prompts[i] for i in chosen]
    replies = [[*asked.own[i], controlled.stops[0]] for i in chosen]
    plain = reply_logits(controlled, prompts, replies)
    prefixed = [controlled.prefixed(prompt, subset) for prompt in prompts]
    return divergence(plain, reply_logits(controlled, prefixed, replies))
