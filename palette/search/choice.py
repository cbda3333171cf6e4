"""The choice from the Pareto front, by a rule that the report states, and the audit of the scores behind it.

A score of a short horizon is gamed: the model may delay its refusal. So members of the front and a random
sample of all trials are generated at full length and judged, and the rank correlation of score and
judgement over them is reported.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from scipy.stats import kendalltau

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.backbones.placement import pass_seconds
from palette.directions import intervening
from palette.errors import SearchError
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt
from palette.run import Run
from palette.search.settings import OBJECTIVES, Audit
from palette.search.space import WORST, Collected, Finished, Objectives, dominates, intervention_of, losses
from palette.seeding import evenly, shuffler
from palette.statistics.rates import wilson

RULE = (
    "constraints first: only trials that break none; of their Pareto front, the knee: the member "
    "nearest to the ideal point after each objective is scaled to [0, 1] over the front; ties go to "
    "the lower first objective, then to the earlier trial; where its whole replies are refused as often "
    "as before, the next member whose are not"
)


def choose(trials: Sequence[Finished], objectives: Objectives, first: int | None = None) -> list[Finished]:
    """The Pareto front of the feasible trials, ordered by ``RULE``, or with another member first.

    Raises:
        SearchError: if no trial is feasible, naming the constraints that bound; or if ``first`` is no
            member's number.
    """
    feasible = sorted((t for t in trials if t.feasible), key=lambda t: t.number)
    if not feasible:
        raise SearchError(
            "at least one trial must keep every limit",
            got=bound(trials),
            remedy=_remedy(trials, set(objectives) - set(OBJECTIVES)),
        )
    worth = {trial.number: losses(trial.values, objectives) for trial in feasible}
    distinct = list({worth[trial.number]: trial for trial in reversed(feasible)}.values())
    front = [t for t in distinct if not any(dominates(o, worth[t.number]) for o in worth.values())]
    columns = list(zip(*(worth[trial.number] for trial in front), strict=True))
    low = [min(column) for column in columns]
    span = [max(column) - min(column) or 1.0 for column in columns]

    def distance(trial: Finished) -> float:
        each = zip(worth[trial.number], low, span, strict=True)
        return math.fsum(((v - a) / s) ** 2 for v, a, s in each)

    front.sort(key=lambda t: (round(distance(t), 9), worth[t.number][0], t.number))
    if first not in {None, *(trial.number for trial in front)}:
        raise SearchError(
            "search.choose must be a member of the Pareto front",
            got=first,
            remedy=f"take one of {', '.join(str(trial.number) for trial in front)}",
        )
    return sorted(front, key=lambda trial: trial.number != first)


def relaxing_first(front: Sequence[Finished], audit: dict[str, Any]) -> list[Finished]:
    """The front, with the first member that lowers the refusals of whole replies brought forward.

    By intervals that lie apart, of those that were audited. As it was where there is none.
    """
    before = audit["backbone"]["target_refusal"]["low"]
    after = {row["trial"]: row["target_refusal"]["high"] for row in audit["trials"]}
    relaxing = next((trial for trial in front if after.get(trial.number, 1.0) < before), None)
    return sorted(front, key=lambda trial: trial is not relaxing)


def bound(trials: Sequence[Finished]) -> str:
    """Which constraints bound how many trials, and the least excess of each."""
    broken: dict[str, list[float]] = defaultdict(list)
    for name, excess in (each for trial in trials for each in trial.constraints.items()):
        if excess > 0:
            broken[name].append(excess)
    parts = [
        f"{name} bound {len(excesses)} (least excess {min(excesses):.3g})"
        for name, excesses in sorted(broken.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return f"{len(trials)} trials, of which {' and '.join(parts) or 'none was scored'}"


def _remedy(trials: Sequence[Finished], own: Collection[str]) -> str:
    broken = {name for trial in trials for name, excess in trial.constraints.items() if excess > 0}
    remedies = {"benign_divergence": "raise search.divergence", "target_refusals": "lower search.relaxation"}
    if own:
        remedies["finite"] = f"mend {', '.join(sorted(own))}"
    found = [remedy for name, remedy in remedies.items() if name in broken]
    return f"{' or '.join([*found, 'raise search.trials'])}; the study is kept"


def audited(
    trials: Sequence[Finished], front: Sequence[Finished], settings: Audit, seed: int
) -> list[Finished]:
    """The trials to be audited: first members of the front, then a seeded sample of the others."""
    members = list(front[: settings.members])
    numbers = {trial.number for trial in members}
    others = [trial for trial in trials if trial.number not in numbers]
    return members + shuffler(seed, "audit").sample(others, min(settings.sample, len(others)))


def affordable(run: Run, settings: Audit) -> Audit:
    """The audit with as many trials as fit into its time."""
    prompts = [prompt for rows in _asked(run, settings).values() for prompt in run.render(rows)]
    tokens = sum(len(prompt) + settings.reply_tokens for prompt in prompts)
    return settings.within(tokens * pass_seconds(run.backbone))


def _asked(run: Run, settings: Audit) -> dict[str, list[Prompt]]:
    """The validation prompts that are answered, of the target and of all preserved domains."""
    requests = {}
    for name, role in (("target", Role.TARGET), ("preserved", Role.PRESERVE)):
        requests[name] = list(evenly(run.select("validation", role).rows, settings.prompts))
    return requests


def audit(
    run: Run, collected: Collected, chosen: Sequence[Finished], objectives: Objectives, settings: Audit
) -> dict[str, Any]:
    """The judged refusal rates at full length, of the backbone and of each trial, and how scores rank them.

    A rate is ``{"rate", "low", "high", "k", "n"}``; the correlation is Kendall's tau-b, or None where
    one of the two never varies.
    """
    requests = _asked(run, settings)
    prompts = [prompt for rows in requests.values() for prompt in run.render(rows)]
    judge = RuleJudge(prefixes=collected.judge_prefixes)
    trials: list[dict[str, Any]] = []

    def rates() -> dict[str, Any]:
        found = {}
        replies = iter(greedy_replies(run.backbone, prompts, settings.reply_tokens))
        for name, rows in requests.items():
            labels = [
                judge.verdict(run.backbone.decode(reply)).label
                for _, reply in zip(rows, replies, strict=False)
            ]
            found[f"{name}_refusal"] = wilson(sum(x.refused for x in labels), len(labels)).to_json()
            if name == "target":
                broken = wilson(sum(x.broken for x in labels), len(labels))
                found["target_degenerate"] = broken.to_json()
        return found

    with run.progress("audit", len(chosen) + 1) as advance:
        own = rates()
        advance(1)
        for trial in chosen:
            score = {**trial.notes, **trial.named(objectives)}.get("target_refusal_score", WORST)
            with intervening(run.backbone, collected.directions, intervention_of(trial.params)):
                found = rates()
            trials.append({"trial": trial.number, "target_refusal_score": score, **found})
            advance(1)
    scores = [row["target_refusal_score"] for row in trials]
    return {
        "trials": trials,
        "backbone": own,
        "prompts": {name: len(rows) for name, rows in requests.items()},
        "rank_correlation": kendall_tau(scores, [row["target_refusal"]["rate"] for row in trials]),
    }


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b in [-1, 1], which allows for ties; None where one of them never varies."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(kendalltau(one, other).statistic)
