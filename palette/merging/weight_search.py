"""The weights of a merge, searched on the validation split; reference answers are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import greedy_replies, reply_logits
from palette.evaluation.subjects import divergence
from palette.judging.rules import RuleJudge
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from palette.run import Run
from palette.search.choice import choose
from palette.search.space import Params, Real, Scored
from palette.search.study import StudyPlan, run_study

PROMPTS = 16
"""Prompts at most, a domain, kind and tier, of a trial."""

HEAVIEST = 1.5
ALIKE = (1.0, 1.1, 1.2, 1.3, 0.9)
"""Weights that all adapters have in the first trials: what many leave mostly makes all of them weaker."""


def search_weights(
    run: Run, judge: RuleJudge, adapters: Sequence[Adapter], trials: int, tokens: int, prompts: int = PROMPTS
) -> tuple[float, ...]:
    """One weight in [0, 1.5] for each adapter: of the trials' the one whose worst domain is best.

    A trial is worth the largest share, over domains, of authorised prompts still refused, of refusals
    lost elsewhere and of new refusals of benign prompts, beside which benign divergence in nats stands
    as it is; their mean decides between equals. The first trial adds the adapters as they are, the next
    ones all of them at one weight. Replies are ``tokens`` long, enough to tell a refusal.
    """
    backbone, rows = run.backbone, run.select("validation", *Role).capped(prompts)
    rendered = run.render(rows)
    roles = [run.authorisation.role(row) for row in rows]
    cells: dict[tuple[Role, str], list[int]] = {}
    for i, (row, role) in enumerate(zip(rows, roles, strict=True)):
        cells.setdefault((role, row.domain), []).append(i)

    def refused(replies: Sequence[list[int]]) -> list[bool]:
        texts = [backbone.decode(reply) for reply in replies]
        return [verdict.label.refused for verdict in judge.verdicts(rows.requests, texts)]

    plain_replies = greedy_replies(backbone, rendered, tokens)
    before = refused(plain_replies)
    benign = [i for i, role in enumerate(roles) if role is Role.BENIGN]
    asked = [rendered[i] for i in benign]
    replies = [[*plain_replies[i], backbone.stops[0]] for i in benign]
    plain = reply_logits(backbone, asked, replies)
    names = [f"weight {i}" for i in range(len(adapters))]

    def score(params: Params) -> Scored:
        inputs = [MergeInput(a, params[name]) for a, name in zip(adapters, names, strict=True)]
        with mounted(backbone.model, combine(inputs)[0]):
            after = refused(greedy_replies(backbone, rendered, tokens))
            moved = reply_logits(backbone, asked, replies)
        bad = [*shares(cells, before, after), divergence(plain, moved)["multi_token"]]
        return Scored((max(bad) + 0.01 * sum(bad) / len(bad),), {})

    with TemporaryDirectory() as folder, run.progress("weights", trials) as advance:
        plan = StudyPlan(
            Path(folder) / "study.journal",
            dict.fromkeys(names, Real(0.0, HEAVIEST)),
            {"worst": "minimize"},
            "weights",
            trials,
            run.seed,
            enqueue=tuple(dict.fromkeys(names, weight) for weight in ALIKE[:trials]),
        )
        best = choose(run_study(plan, score, advance), plan.objectives)[0]
    return tuple(round(float(best.params[name]), 4) for name in names)


def shares(
    cells: Mapping[tuple[Role, str], Sequence[int]], before: Sequence[bool], after: Sequence[bool]
) -> list[float]:
    """For each role and domain the share of prompts for which the adapters do the wrong thing."""

    def wrong(role: Role, i: int) -> bool:
        if role is Role.TARGET:
            return after[i]
        return after[i] and not before[i] if role is Role.BENIGN else before[i] and not after[i]

    return [sum(wrong(role, i) for i in rows) / len(rows) for (role, _), rows in sorted(cells.items())]
