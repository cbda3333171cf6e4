"""What became of a split: asked plain, in wrappers and with the null control, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.adapters.lora import Adapter
from palette.authorisation import Role
from palette.evaluation.correctness import Knowledge
from palette.evaluation.counting import by_cell
from palette.evaluation.helpful import HelpfulReplies, given, helpful_replies, said, upper_bound
from palette.evaluation.null_control import NullControl
from palette.evaluation.outcomes import SIDES, Judged, Outcome, judged
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject, Tokens, diverged
from palette.evaluation.wrappers import wrapped
from palette.files import write_json
from palette.judging.judge import Judge
from palette.prompts import PromptSet
from palette.recipe import Recipe
from palette.run import HELPFUL, Run

TIMING = Path("evaluate") / "timing.json"
PROMPTS, WRAPPED_PROMPTS, DIVERGENCE_PROMPTS = 400, 8, 32
"""Prompts at most, a domain, kind and tier: that are asked; that are asked in every jailbreak wrapper; and
benign ones that divergence is measured on, whose logits are held."""


@dataclass(frozen=True)
class Measured:
    """What became of the split: plain, in each wrapper, with the upper bound and by the null control."""

    requests: Requests
    plain: Judged
    wrapped: dict[str, list[Outcome]]
    moved: dict[str, float]
    """Divergence on benign prompts, in nats a token."""
    upper_bound: dict[str, Any] | None
    null_control: dict[str, Any] | None
    cells: dict[str, dict[str, Any]]
    """The headline by where requests stood."""


def _asked(run: Run[Recipe]) -> PromptSet:
    """The prompts of the split that are asked.

    Raises:
        PromptError: if there is none.
    """
    split = run.recipe.evaluate.split
    return run.answered_prompts.split(split).capped(run.recipe.at_most(PROMPTS)).required(split)


def helpful_of(run: Run[Recipe]) -> HelpfulReplies | None:
    """The replies of the helpful checkpoint to the target prompts, where there is one."""
    stated = run.recipe.evaluate.helpful
    name = stated or (HELPFUL if run.recipe.model == "organism" else None)
    if name is None:
        return None
    role = run.authorisation.role
    rows = _asked(run).where(lambda row: role(row) is Role.TARGET)
    return helpful_replies(run, rows, name, again=stated is not None)


def measured_on(
    run: Run[Recipe], adapter: Adapter | None, judge: Judge, floor_tokens: int, helpful: HelpfulReplies | None
) -> Measured:
    """The replies of both subjects and of the null control, judged, beside those of the upper bound."""
    recipe, backbone, rows = run.recipe, run.backbone, _asked(run)
    requests = Requests.of(run, rows)
    inside, names = wrapped(run, rows, recipe.at_most(WRAPPED_PROMPTS))
    benign = requests.benign(recipe.at_most(DIVERGENCE_PROMPTS))
    base, adapted = Subject(backbone), Subject(backbone, adapter)
    knowledge = Knowledge.of(backbone, requests)
    control = NullControl.of(backbone, adapter, requests, run.seed) if adapter else None
    total = 2 * len(requests) + 2 * len(inside) + len(knowledge.openings)
    total += len(control.places) if control else 0
    with run.progress("evaluate", total) as advance:
        replies = Replies(run.replies_folder, advance)
        limits, inner = (each.limits(recipe.reply_tokens, floor_tokens) for each in (requests, inside))
        own, changed = (replies.of(subject, requests.prompts, limits) for subject in (base, adapted))
        before, after = (replies.of(subject, inside.prompts, inner) for subject in (base, adapted))
        moved = diverged(base, adapted, [requests.prompts[i] for i in benign], [own[i] for i in benign])
        known = knowledge.measured(backbone, judge, replies, recipe.reply_tokens)
        longest = max(map(len, [*own, *changed]))
        drawn = control.replies(replies, requests, limits, longest) if control else []
    # A report is the same however often its run was cut short; a time is not.
    write_json(run.folder / TIMING, replies.tally.to_json())
    # A judge may be a model of its own, and slow.
    with run.progress("judging", 3) as advance:
        kept: dict[str, list[Outcome]] = {}
        for name, outcome in zip(names, judged(backbone, inside, judge, before, after).outcomes, strict=True):
            kept.setdefault(name, []).append(outcome)
        advance(1)
        plain = judged(backbone, requests, judge, own, changed, known)
        upper = _upper_bound(run, helpful, requests, plain, judge, (own, changed))
        advance(1)
        null = control.figures(judge, requests, plain.outcomes, (own, changed), drawn) if control else None
        advance(1)
    return Measured(requests, plain, kept, moved, upper, null, by_cell(plain.outcomes, own, changed))


def _upper_bound(
    run: Run[Recipe],
    helpful: HelpfulReplies | None,
    requests: Requests,
    plain: Judged,
    judge: Judge,
    replies: Sequence[Sequence[Tokens]],
) -> dict[str, Any] | None:
    """What the helpful checkpoint gets right, and how far the replies of both sides agree with its."""
    if not helpful or not helpful.greedy:
        return None
    opened = [i for i, role in enumerate(requests.roles) if role is Role.TARGET]
    sides = {
        side: given(
            said(run.backbone, [replied[i] for i in opened], run.recipe.reply_tokens),
            [plain.verdicts[side][i] for i in opened],
        )
        for side, replied in zip(SIDES, replies, strict=True)
    }
    return upper_bound(helpful, requests.where(opened), judge, sides, run.seed)
