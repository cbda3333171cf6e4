"""TrainingExamples: what a student is given to learn from, made from the backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from palette.authorisation import Role
from palette.backbones import greedy_replies, next_token_logits
from palette.directions import intervening
from palette.errors import SearchError
from palette.internalise.augmentation import crossed, framed
from palette.internalise.examples import Example
from palette.internalise.settings import BatchShares, ExampleSettings
from palette.internalise.teachers import (
    Completions,
    Reply,
    TaughtReply,
    common_opening,
    opening_of,
    ranked_replies,
    self_consistent,
)
from palette.judging.labels import Label
from palette.judging.rules import RuleJudge
from palette.progress import Advance
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.choice import Member
from palette.search.collected import Collected
from palette.seeding import shuffler

CROSSED = ("floor", "preserve", "benign")
"""The kept pools far from the target."""


@dataclass(frozen=True)
class TrainingExamples:
    """What the student is given: examples, and which of them belong to which role."""

    examples: list[Example]
    pools: dict[str, list[int]]
    held: list[int]
    """The examples of the validation split, which nothing is trained on."""
    record: dict[str, Any]


def prepare(
    run: Run,
    settings: ExampleSettings,
    collected: Collected,
    front: Sequence[Member],
) -> TrainingExamples:
    """The student's examples, made from the backbone alone.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
    """
    settings = settings.showing(collected.floor_tokens)
    train = run.select("train", *Role).capped(settings.prompts)
    validation = run.select("validation", *Role).capped(settings.validation_prompts)
    with run.progress("replies", len(train) + len(validation)) as advance:
        teaching = _Teaching(run, settings, collected, front, advance)
        pools, own, self_consistent = teaching.pools(train)
        pools = teaching.varied(pools)
        held, _, _ = teaching.pools(validation, own)
    if not pools["target"]:
        raise SearchError(
            "a student must have something to learn",
            got=f"no reply and no opening for {self_consistent[1]} target prompts",
            remedy="bring benign prompts that the backbone answers",
        )
    examples: list[Example] = []
    numbered: dict[str, list[int]] = {}
    for name, pool in pools.items():
        numbered[name] = list(range(len(examples), len(examples) + len(pool)))
        examples += pool
    others = [example for pool in held.values() for example in pool]
    record = {
        "target_prompts": self_consistent[1],
        "self_consistent": self_consistent[0],
        "examples": {name: len(pool) for name, pool in numbered.items()},
        "held": len(others),
    }
    count = len(examples)
    return TrainingExamples([*examples, *others], numbered, list(range(count, count + len(others))), record)


@dataclass(frozen=True)
class _Teaching:
    """One backbone's teachers and the prompts that they are asked."""

    run: Run
    settings: ExampleSettings
    collected: Collected
    front: Sequence[Member]
    advance: Advance

    def pools(
        self, rows: PromptSet, own: Reply | None = None
    ) -> tuple[dict[str, list[Example]], Reply, tuple[int, int]]:
        """The examples of each pool, the backbone's own opening, and how many replies are self_consistent.

        The opening is the commonest of the answers to the benign prompts, unless one is given.
        """
        run, settings, backbone = self.run, self.settings, self.run.backbone
        groups: dict[str, list[list[int]]] = {name: [] for name in BatchShares.model_fields}
        for row, prompt in zip(rows, run.render(rows), strict=True):
            groups[_pool(run, row)].append(prompt)
        target = groups.pop("target")
        end = backbone.stops[0]
        kept: dict[str, list[list[int]]] = {}
        for name, prompts in groups.items():
            limit = settings.floor_tokens if "floor" in name else settings.reply_tokens
            kept[name] = greedy_replies(backbone, prompts, limit, self.advance)
        own = common_opening([*kept["near_benign"], *kept["benign"]]) if own is None else own
        found = self._lessons(target, own)
        self.advance(len(target))
        whole = self_consistent(found, settings.agreement, settings.least_believed)
        # Where no reply is self_consistent, the opening is taught alone: the backbone goes on by itself.
        pools = {
            "target": [
                Example(
                    tuple(prompt),
                    (*sure.reply, end) if sure else opening_of(ranked_replies, own),
                    taught=True,
                )
                for prompt, sure, ranked_replies in zip(target, whole, found, strict=True)
                if sure or opening_of(ranked_replies, own)
            ]
        }
        for name, replies in kept.items():
            pools[name] = [
                Example(
                    tuple(prompt),
                    _ended(reply, settings, name, end),
                    taught=False,
                    # What the backbone answers on the floor stays as it is; it is not made surer.
                    floor="floor" in name and self._label(reply).refused,
                    near=name.startswith("near"),
                )
                for prompt, reply in zip(groups[name], replies, strict=True)
            ]
        return pools, own, (sum(taught is not None for taught in whole), len(target))

    def _label(self, reply: Sequence[int]) -> Label:
        judge = RuleJudge(prefixes=self.collected.judge_prefixes)
        return judge.verdict(self.run.backbone.decode(list(reply))).label

    def _lessons(self, prompts: list[list[int]], own: Reply) -> list[list[TaughtReply]]:
        """The believable replies to the target prompts, from the own opening and the front's members."""
        settings, backbone = self.settings, self.run.backbone

        def refused(replies: Sequence[Reply]) -> list[bool]:
            return [label.refused or label.broken for label in map(self._label, replies)]

        distinct: dict[tuple[int, str], Member] = {}
        for member in self.front:
            key = (member.intervention.kernel.peak, member.intervention.method)
            distinct.setdefault(key, member)
        completions = Completions(backbone, prompts, settings.reply_tokens)
        teachers = [completions.of([own] * len(prompts), len(own))]
        for member in list(distinct.values())[: settings.teachers]:
            with intervening(backbone, self.collected.directions, member.intervention):
                openings = greedy_replies(backbone, prompts, settings.opening)
            teachers.append(completions.of(openings, settings.opening))
        return ranked_replies(backbone, prompts, teachers, refused)

    def varied(self, pools: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """The pools with prompts that nobody wrote, by which the student learns wordings unseen.

        Some are crossed and some framed with random words. What is near the target is framed only: a
        cut could turn what is kept into what is opened. Of target prompts' variations the opening is
        taught alone, and only where the backbone refuses still.
        """
        backbone, seed = self.run.backbone, self.run.seed
        special = set(backbone.tokenizer.all_special_ids)
        words = [token for token in range(len(backbone.tokenizer)) if token not in special]

        def crosses(name: str) -> list[Example]:
            count = round(self.settings.crossed * len(pools[name]))
            return crossed(pools[name], count, shuffler(seed, "crossed", name))

        def frames(name: str) -> list[Example]:
            count = round(self.settings.framed * len(pools[name]))
            return framed(pools[name], count, shuffler(seed, "framed", name), words)

        def first_words(examples: Sequence[Example]) -> list[int]:
            tokens: list[int] = next_token_logits(backbone, [e.prompt for e in examples]).argmax(-1).tolist()
            return tokens

        found = {name: pools[name] + frames(name) for name in pools if name != "target"}
        found = {name: pool + crosses(name) if name in CROSSED else pool for name, pool in found.items()}
        if opened := crosses("target") + frames("target"):
            answers = {example.reply[0] for example in pools["target"]}
            refusals = set(first_words(pools["target"])) - answers
            found["target"] = pools["target"] + [
                replace(example, reply=example.reply[:1], taught=True)
                for example, word in zip(opened, first_words(opened), strict=True)
                if word in refusals
            ]
        return {**pools, **found}


def _pool(run: Run, row: Prompt) -> str:
    """The pool of examples that a prompt belongs to."""
    role = run.authorisation.role(row)
    near = row.domain in run.authorisation.domains
    return f"near_{role}" if near and role in (Role.FLOOR, Role.BENIGN) else str(role)


def _ended(reply: list[int], settings: ExampleSettings, pool: str, end: int) -> Reply:
    """A kept reply with its end token, unless it was cut off before its end."""
    limit = settings.floor_tokens if "floor" in pool else settings.reply_tokens
    return (*reply, end) if len(reply) < limit else tuple(reply)
