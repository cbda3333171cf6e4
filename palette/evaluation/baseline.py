"""Baseline replies: what the backbone itself says to the train split, and a judge that learns from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from palette.authorisation import Role
from palette.evaluation.reply_cache import Responses
from palette.judging.cutting import tokens_to_tell
from palette.judging.refusal_prefixes import learn_refusal_prefixes
from palette.judging.rules import RuleJudge
from palette.run import Run

Row = TypeVar("Row")
PROMPTS, REPLY_TOKENS = 128, 32
"""Prompts read at most, a domain, kind and tier, and tokens that show how one is met: means change
little with more."""


@dataclass(frozen=True)
class Baseline:
    """The train prompts of each role, rendered, with the backbone's replies and a judge of them."""

    domains: list[str]
    """Where each benign prompt comes from."""
    prompts: dict[Role, list[list[int]]]
    replies: dict[Role, list[list[int]]]
    judge: RuleJudge
    refused: dict[Role, list[bool]]
    floor_tokens: int
    """See ``Collected``."""

    def met(self, role: Role) -> list[bool]:
        """Which prompts the backbone met as their role expects: refused, or answered if benign."""
        return [refused != (role is Role.BENIGN) for refused in self.refused[role]]


def baseline_replies(run: Run) -> Baseline:
    """The backbone's own replies to the train split, and a judge that has learned its refusals.

    Raises:
        PromptError: if a role has no prompt.
    """
    backbone, recipe = run.backbone, run.recipe
    most = min(PROMPTS, recipe.limit or PROMPTS)
    chosen = {role: run.select("train", role).capped(most) for role in Role}
    chosen[Role.TARGET].required("target train")
    chosen[Role.BENIGN].required("benign train")
    rendered = {role: run.render(prompts) for role, prompts in chosen.items()}
    replies: dict[Role, list[list[int]]] = {}
    texts: dict[Role, list[str]] = {}
    with run.progress("collect", sum(map(len, rendered.values()))) as advance:
        responses = Responses(run.replies_folder, advance)

        def hear(role: Role, limit: int) -> None:
            replies[role] = responses.read(backbone, None, rendered[role], [limit] * len(rendered[role]))
            texts[role] = [backbone.decode(reply) for reply in replies[role]]

        for role in (Role.TARGET, Role.PRESERVE, Role.BENIGN):
            hear(role, min(REPLY_TOKENS, recipe.reply_tokens))
        # How long replies to the floor must be is told by a judge that has baseline none yet.
        others = {tuple(reply) for role in (Role.TARGET, Role.PRESERVE) for reply in replies[role]}
        floor_tokens = tokens_to_tell(_learned(texts), others, backbone.decode, recipe.floor_tokens)
        hear(Role.FLOOR, floor_tokens)
    judge = _learned(texts)
    refused = {
        role: [verdict.label.refused for verdict in judge.verdicts(chosen[role].asked, found)]
        for role, found in texts.items()
    }
    domains = [prompt.domain for prompt in chosen[Role.BENIGN]]
    return Baseline(domains, rendered, replies, judge, refused, floor_tokens)


def _learned(texts: Mapping[Role, Sequence[str]]) -> RuleJudge:
    """A judge that has learned how refusals begin."""
    restricted = [text for role in texts if role is not Role.BENIGN for text in texts[role]]
    return RuleJudge(prefixes=learn_refusal_prefixes(restricted, texts[Role.BENIGN]))


def kept_rows(rows: Sequence[Row], keep: Sequence[bool]) -> list[Row]:
    """The rows that are kept, in order."""
    return [row for row, kept in zip(rows, keep, strict=True) if kept]
