"""What the backbone itself says to the train split, and what judges learn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from palette.authorisation import Role
from palette.evaluation.counting import KINDS
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject, Tokens
from palette.judging.classifiers import PanelJudge
from palette.judging.judge import Judge, Label, judge_named
from palette.judging.language import Language, LanguageJudge, Said, learn_language
from palette.judging.refusal_prefixes import learn_refusal_prefixes, tokens_to_tell
from palette.judging.rules import RuleJudge
from palette.run import Run

PROMPTS = 128
"""Train prompts read at most, a domain, kind and tier: what arXiv 2605.24154 takes a side."""
REPLY_TOKENS = 32
"""Tokens after which it shows how a prompt is met; later words are not needed to learn from."""


@dataclass(frozen=True)
class Baseline:
    """The train prompts of each role, rendered, with the backbone's replies and a judge of them."""

    requests: Mapping[Role, Requests]
    replies: Mapping[Role, list[Tokens]]
    texts: Mapping[Role, list[str]]
    reply_tokens: int
    """Tokens after which a reply was cut."""
    judge: RuleJudge
    labels: Mapping[Role, list[Label]]
    floor_tokens: int
    """Tokens after which the backbone's refusals can be told: the least that floor replies are given."""

    @cached_property
    def refused(self) -> dict[Role, list[bool]]:
        """Which prompts the backbone refused."""
        return {role: [label.refused for label in labels] for role, labels in self.labels.items()}

    @cached_property
    def domains(self) -> dict[str, dict[str, dict[str, int]]]:
        """By domain and kind: prompts read, and how many of them the backbone refused and answered.

        A reply that is neither, such as babble, is in neither count.
        """
        table: dict[str, dict[str, dict[str, int]]] = {}
        for role, labels in self.labels.items():
            kind = next(kind for kind, roles in KINDS.items() if role in roles)
            for row, label in zip(self.requests[role].rows, labels, strict=True):
                kinds = table.setdefault(row.domain, {})
                cell = kinds.setdefault(kind, {"read": 0, "refused": 0, "answered": 0})
                cell["read"] += 1
                cell["refused"] += label.refused
                cell["answered"] += not (label.refused or label.broken)
        return {
            domain: {k: table[domain][k] for k in KINDS if k in table[domain]} for domain in sorted(table)
        }

    @cached_property
    def language(self) -> Language:
        """What the backbone's benign replies look like, and what only its refusals say."""
        said = {role: [self._said(role, place) for place in self.as_expected(role)] for role in self.replies}
        benign = said.pop(Role.BENIGN)
        return learn_language([one for each in said.values() for one in each], benign)

    def _said(self, role: Role, place: int) -> Said:
        row, reply = self.requests[role].rows[place], self.replies[role][place]
        return Said(row.request, self.texts[role][place], row.domain, len(reply) < self.reply_tokens)

    def judge_of(self, name: str) -> Judge:
        """The judge of a name, which knows the backbone's own refusals and what is not its language."""
        judge = judge_named(name, self.judge.prefixes)
        if isinstance(judge, PanelJudge):
            restricted, benign = (self._exchanges(role) for role in (Role.TARGET, Role.BENIGN))
            judge = judge.attuned(restricted, benign)
        return LanguageJudge(judge, self.language)

    def _exchanges(self, role: Role) -> tuple[list[str], list[str]]:
        """What was asked and replied; a few hundred tell how a model answers."""
        step = max(1, len(self.texts[role]) // PROMPTS)
        return self.requests[role].questions[::step], self.texts[role][::step]

    def met(self, role: Role) -> list[bool]:
        """Which prompts the backbone met as their role expects: refused, or answered if benign."""
        return [refused != (role is Role.BENIGN) for refused in self.refused[role]]

    def known(self, limit: int) -> dict[tuple[int, ...], tuple[Tokens, bool]]:
        """The replies by prompt, up to so many tokens, and whether each is whole so far."""
        found: dict[tuple[int, ...], tuple[Tokens, bool]] = {}
        for role, requests in self.requests.items():
            most = self.floor_tokens if role is Role.FLOOR else self.reply_tokens
            for prompt, reply in zip(requests.prompts, self.replies[role], strict=True):
                found[tuple(prompt)] = reply[:limit], len(reply) < most or limit <= most
        return found

    def as_expected(self, role: Role) -> list[int]:
        """The places of the prompts that were met so."""
        return [place for place, met in enumerate(self.met(role)) if met]


def baseline_replies(run: Run) -> Baseline:
    """The backbone's own replies to the train split, and a judge that has learned its refusals.

    Raises:
        PromptError: if a role has no prompt.
    """
    backbone, recipe = run.backbone, run.recipe
    rows = {role: run.select("train", role).capped(recipe.at_most(PROMPTS)) for role in Role}
    for role in (Role.TARGET, Role.BENIGN):
        rows[role].required(f"{role.value} train")
    requests = {role: Requests.of(run, chosen) for role, chosen in rows.items()}
    replies: dict[Role, list[Tokens]] = {}
    texts: dict[Role, list[str]] = {}
    with run.progress("collect", sum(map(len, requests.values()))) as advance:
        source = Replies(run.replies_folder, advance)

        def ask(role: Role, limit: int) -> None:
            prompts = requests[role].prompts
            replies[role] = source.of(Subject(backbone), prompts, [limit] * len(prompts))
            texts[role] = [backbone.decode(reply) for reply in replies[role]]

        most = min(REPLY_TOKENS, recipe.reply_tokens)
        for role in (Role.TARGET, Role.PRESERVE, Role.BENIGN):
            ask(role, most)
        # How long replies to the floor must be is told by a judge that has met none of them yet.
        others = {tuple(reply) for role in (Role.TARGET, Role.PRESERVE) for reply in replies[role]}
        floor_tokens = tokens_to_tell(_learned(texts), others, backbone.decode, recipe.floor_tokens)
        ask(Role.FLOOR, floor_tokens)
    judge = _learned(texts)
    labels = {
        role: [verdict.label for verdict in judge.verdicts(requests[role].questions, said)]
        for role, said in texts.items()
    }
    return Baseline(requests, replies, texts, most, judge, labels, floor_tokens)


def _learned(texts: Mapping[Role, Sequence[str]]) -> RuleJudge:
    """A judge that has learned how refusals begin."""
    restricted = [text for role in texts if role is not Role.BENIGN for text in texts[role]]
    return RuleJudge(prefixes=learn_refusal_prefixes(restricted, texts[Role.BENIGN]))
