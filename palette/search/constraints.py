"""What a trial of the search may not do: limits that make it infeasible, however well it scores."""

from __future__ import annotations

from collections.abc import Mapping

from palette.search.settings import LimitSettings


def excesses(
    limits: LimitSettings, base: Mapping[str, float], summary: Mapping[str, float]
) -> dict[str, float]:
    """By how much each limit is exceeded; satisfied where that is not positive.

    ``base`` and ``summary`` are of the backbone without and with the intervention. One that relaxes
    nothing is no answer, however little it moves. One that takes more from preserved or floor prompts
    than from the target opens the wrong thing, whatever the nats are worth on this backbone.
    """
    fall = {
        name: base[name] - summary[name]
        for name in ("target_refusal_score", "preserved_refusal_score", "floor_refusal_score")
    }
    allowed = max(0.0, fall["target_refusal_score"]) + limits.selectivity
    rise = summary["benign_false_refusals"] - base["benign_false_refusals"]
    return {
        "target_refusals": limits.relaxation - fall["target_refusal_score"],
        "benign_divergence": summary["benign_divergence"] - limits.divergence,
        "preserved_refusals": fall["preserved_refusal_score"] - allowed,
        "floor_refusals": fall["floor_refusal_score"] - allowed,
        "benign_false_refusals": rise - limits.false_refusals,
    }


def is_hopeless(limits: LimitSettings, excess: Mapping[str, float]) -> bool:
    """Whether a trial relaxes nothing, or is too far beyond a limit for more prompts to matter."""
    return not (
        excess["target_refusals"] <= 0
        and excess["benign_divergence"] <= (limits.hopeless - 1) * limits.divergence
        and excess["preserved_refusals"] <= (limits.hopeless - 1) * limits.selectivity
    )
