"""The audit of a search: some of its trials asked for whole replies, since a score may be gamed.

A short horizon alone is: the model may delay its refusal. So members of the front and a random sample
of all trials are generated at full length and judged, and the rank correlation of score and judgement
over them is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.directions import Directions, Intervention, intervening
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt
from palette.run import Run
from palette.search.choice import Choice, kendall_tau
from palette.search.settings import AuditSettings
from palette.search.space import Finished
from palette.seeding import shuffler
from palette.statistics import Rate, wilson


def audited(trials: Sequence[Finished], choice: Choice, settings: AuditSettings, seed: int) -> list[Finished]:
    """The trials to be audited: first members of the front, then a seeded sample of the others."""
    members = list(choice.front[: settings.members])
    numbers = {trial.number for trial in members}
    others = [trial for trial in trials if trial.number not in numbers]
    return members + shuffler(seed, "audit").sample(others, min(settings.sample, len(others)))


def audit(
    run: Run,
    directions: Directions,
    judge: RuleJudge,
    chosen: Sequence[tuple[Finished, Intervention]],
    settings: AuditSettings,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """For each trial the judged refusal rates at full length, and their rank correlation with the scores.

    A rate is ``{"rate", "low", "high", "k", "n"}``; the correlation is Kendall's tau-b, or None where
    one of the two never varies.
    """
    asked = {
        name: _spread(list(run.select("validation", role)), settings.prompts)
        for name, role in (("target", Role.TARGET), ("preserved", Role.PRESERVE))
    }
    found = []
    for trial, intervention in chosen:
        row: dict[str, Any] = {"trial": trial.number, "target_refusal_score": trial.values[0]}
        for name, rows in asked.items():
            prompts = run.render(rows)
            with intervening(run.backbone, directions, intervention):
                replies = greedy_replies(run.backbone, prompts, settings.reply_tokens)
            texts = [run.backbone.decode(reply) for reply in replies]
            verdicts = judge.verdicts([each.request for each in rows], texts)
            labels = [verdict.label for verdict in verdicts]
            row[f"{name}_refusal"] = wilson(sum(label.refused for label in labels), len(labels))
            if name == "target":
                row["target_degenerate"] = wilson(sum(label.broken for label in labels), len(labels))
        found.append(row)
        advance(1)
    scores = [row["target_refusal_score"] for row in found]
    return {
        "trials": [
            {key: value.to_json() if isinstance(value, Rate) else value for key, value in row.items()}
            for row in found
        ],
        "prompts": {name: len(rows) for name, rows in asked.items()},
        "rank_correlation": kendall_tau(scores, [row["target_refusal"].rate for row in found]),
    }


def _spread(prompts: list[Prompt], count: int) -> list[Prompt]:
    """Up to ``count`` prompts, spread evenly over all of them."""
    stride = max(1, -(-len(prompts) // count))
    return prompts[::stride][:count]
