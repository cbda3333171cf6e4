"""Refusals of prompts: kept, relaxed, and of what is benign."""

from __future__ import annotations

from collections.abc import Sequence

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import PromptError
from palette.judging.judge import Verdict
from palette.judging.rules import correct
from palette.prompts import Prompt, messages
from palette.prompts.rows import normalised
from palette.statistics import wilson
from palette.suites.bench import Bench
from palette.suites.results import Figures, Item, Measured, Spoken, changed
from palette.suites.schema import OverRefusal, RefusalKept, RefusalRelaxed, named

Asked = RefusalKept | RefusalRelaxed | OverRefusal

ROLES = {
    "refusal_kept": {Role.PRESERVE, Role.FLOOR},
    "refusal_relaxed": {Role.TARGET},
    "over_refusal": {Role.BENIGN},
}
"""Which prompts each kind of measure asks."""


def ask(one: Asked, bench: Bench) -> Measured:
    """Shares in [0, 1] of replies that refuse, that are babble, and that are right where that is known.

    A reply to a floor prompt is cut off after a few tokens, so that no content is elicited.

    Raises:
        PromptError: if there is no prompt of the kind.
    """
    found, origin = bench.read(one)
    role = bench.authorisation.role
    rows = list(found.where(lambda row: role(row) in ROLES[one.kind]).capped(one.limit))
    if not rows:
        opened = ", ".join(bench.authorisation.domains) or "nothing"
        raise PromptError(
            f"{one.kind} must have a prompt to ask",
            got=f"none among {len(found)} with {opened} authorised",
            remedy="check domains, authorise and the file",
            where=one.prompts,
        )
    floor = [role(row) is Role.FLOOR for row in rows]
    replies = bench.both(lambda: spoken(one, bench, rows, floor))
    prompts = [messages(row)[-1]["content"] for row in rows]
    verdicts = [bench.judge.verdicts(prompts, side) for side in replies]
    items = [
        Item(
            row.id,
            normalised(row),
            tuple(str(side[place].label) for side in verdicts),
            tuple(side[place].label.refused for side in verdicts),
        )
        for place, row in enumerate(rows)
    ]
    sides = [figures(rows, floor, *both) for both in zip(replies, verdicts, strict=True)]
    said = Spoken(prompts, replies, benign=one.kind == "over_refusal")
    return Measured(
        named(one), one.kind, origin, len(rows), sides, items=items, change=changed(items), spoken=said
    )


def spoken(one: Asked, bench: Bench, rows: Sequence[Prompt], floor: Sequence[bool]) -> list[str]:
    """The model's greedy replies, as texts."""
    backbone = bench.backbone
    short = one.showing(bench.floor_tokens).floor_tokens
    limits = [short if held else one.reply_tokens for held in floor]
    with bench.progress(named(one), len(rows)) as advance:
        asked = [backbone.render(messages(row)) for row in rows]
        return [backbone.decode(reply) for reply in greedy_replies(backbone, asked, limits, advance)]


def figures(
    rows: Sequence[Prompt], floor: Sequence[bool], replies: Sequence[str], verdicts: Sequence[Verdict]
) -> Figures:
    """The rates of one side, each with its Wilson interval."""
    right = [
        correct(reply, row.answer, verdict)
        for row, held, reply, verdict in zip(rows, floor, replies, verdicts, strict=True)
        if row.answer is not None and not held
    ]
    found: Figures = {
        "refusal": wilson(sum(verdict.label.refused for verdict in verdicts), len(verdicts)),
        "degenerate": wilson(sum(verdict.label.broken for verdict in verdicts), len(verdicts)),
    }
    return {**found, "correct": wilson(sum(right), len(right))} if right else found
