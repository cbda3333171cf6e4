"""What the helpful checkpoint, never taught to refuse, replies where prompts are opened, and who agrees.

It is the upper bound of a report and informs; no method and no rule of the gate reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from palette.backbones import Backbone, load_backbone
from palette.evaluation.agreement import Agreement, Reply, agreement
from palette.evaluation.counting import tabulate
from palette.evaluation.outcomes import judged_texts
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject, Tokens
from palette.judging.judge import Judge, Label, Verdict
from palette.prompts import PromptSet, messages
from palette.run import Run, folder_of
from palette.seeding import derive_seed
from palette.statistics.paired import paired_ratio

Said = Sequence[Reply | None]
"""The reply to each prompt; None where it was withheld."""


@dataclass(frozen=True)
class HelpfulReplies:
    """What the helpful checkpoint replies, as texts: its model need not be kept for them."""

    model: str
    fingerprint: str
    greedy: list[Reply]
    drawn: list[Reply] | None
    """One reply each at temperature 1, where it was asked again."""


def helpful_replies(run: Run, rows: PromptSet, name: str, again: bool) -> HelpfulReplies:
    """The replies of the helpful checkpoint of a name, rendered by itself; drawn ones, too, if asked again.

    Raises:
        BackboneError: if there is no such model.
    """
    recipe = run.recipe
    torch.set_num_threads(recipe.threads)
    backbone = load_backbone(
        folder_of(name),
        name,
        dtype=recipe.dtype,
        device=run.processes.device,
        thinking=recipe.thinking,
        system=recipe.system,
    )
    prompts = [backbone.render(messages(row)) for row in rows]
    seeds = [None, derive_seed(run.seed, "helpful")][: 1 + again]
    with run.progress("helpful", len(seeds) * len(prompts)) as advance:
        replies = Replies(run.replies_folder, advance)
        limits = [recipe.reply_tokens] * len(prompts)
        greedy, *drawn = (
            said(backbone, replies.of(Subject(backbone, seed=seed), prompts, limits), recipe.reply_tokens)
            for seed in seeds
        )
    return HelpfulReplies(name, backbone.fingerprint, greedy, drawn[0] if drawn else None)


def said(backbone: Backbone, replies: Sequence[Tokens], limit: int) -> list[Reply]:
    """The texts of replies; those as long as their limit were cut there."""
    return [Reply(backbone.decode(reply), len(reply) >= limit) for reply in replies]


def given(replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> list[Reply | None]:
    """The replies, without those that refuse or turn into a refusal."""
    withheld = (verdict.label.refused or verdict.label is Label.RELAPSE for verdict in verdicts)
    return [None if none else reply for reply, none in zip(replies, withheld, strict=True)]


def upper_bound(
    helpful: HelpfulReplies, requests: Requests, judge: Judge, sides: Mapping[str, Said], seed: int
) -> dict[str, Any]:
    """The section ``upper_bound`` of a report: what the helpful checkpoint gets right, and who agrees.

    ``sides`` are the replies of the backbone, and of the backbone with the adapter, to the same requests.

    Raises:
        JudgeError: if a user's own judge cannot judge.
    """
    both = [helpful.greedy, helpful.greedy if helpful.drawn is None else helpful.drawn]
    found = judged_texts(requests, judge, [[reply.text for reply in replies] for replies in both])
    section: dict[str, Any] = {
        "model": helpful.model,
        "fingerprint": helpful.fingerprint,
        "domains": tabulate(found.outcomes)["base"],
    }
    if helpful.drawn is not None:
        greedy, drawn = (given(*pair) for pair in zip(both, found.verdicts.values(), strict=True))
        section["agreement"] = agreements(requests, greedy, {**sides, "helpful": drawn}, seed)
    return section


def agreements(
    requests: Requests, greedy: Said, sides: Mapping[str, Said], seed: int
) -> dict[str, dict[str, Any]]:
    """The mean agreement in [0, 1] of each side's replies with those of the helpful checkpoint, by domain.

    ``sides`` are ``base``, ``adapted`` and ``helpful``, its drawn replies. What is withheld agrees in
    nothing; prompts that the helpful checkpoint refuses are left out.
    """
    table: dict[str, dict[str, Any]] = {}
    for domain in sorted({row.domain for row in requests.rows}):
        places = [i for i, row in enumerate(requests.rows) if row.domain == domain]
        answered = [i for i in places if greedy[i]]
        found = {
            side: [_compared(requests, i, replies[i], greedy[i]) for i in answered]
            for side, replies in sides.items()
        }
        values = {side: [each.value if each else 0.0 for each in one] for side, one in found.items()}
        # Each against the reply to the next prompt, round the table.
        others = [greedy[i] for i in (*answered[1:], *answered[:1])] if len(answered) > 1 else []
        pairs = zip(answered, others, strict=False)
        unrelated = [_compared(requests, i, greedy[i], other) for i, other in pairs]
        table[domain] = {
            "n": len(answered),
            "left_out": len(places) - len(answered),
            **{side: fmean(one) for side, one in values.items() if one},
            "unrelated": fmean(each.value for each in unrelated if each) if unrelated else None,
            "ratio": paired_ratio(values["adapted"], values["helpful"], seed),
            "ways": dict(sorted(Counter(each.way.value for each in found["adapted"] if each).items())),
            "refused": sum(each is None for each in found["adapted"]),
        }
    return table


def _compared(requests: Requests, place: int, reply: Reply | None, other: Reply | None) -> Agreement | None:
    return agreement(requests.rows[place].request, reply, other) if reply and other else None
