"""Training examples: what a student is given to learn from, made from the backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

from palette.authorisation import Role
from palette.backbones import greedy_replies, next_token_logits, shared
from palette.directions import intervening
from palette.errors import SearchError
from palette.internalise.examples import Example
from palette.internalise.task import SHARES
from palette.internalise.teachers import (
    AGREEMENT,
    LEAST_CONSISTENT,
    Completions,
    Reply,
    TaughtReply,
    common_opening,
    opening_of,
    ranked_replies,
    self_consistent,
)
from palette.judging.judge import Label
from palette.judging.rules import RuleJudge
from palette.processes import Advance
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.choice import Member
from palette.search.collected import Collected
from palette.seeding import shuffler

PROMPTS, VALIDATION_PROMPTS = 240, 8
"""Train and validation prompts at most, a domain, kind and tier. The latter only end training."""

REPLY_TOKENS = 48
"""Tokens of a taught or kept reply at most: what decides whether a request is answered stands before."""

TEACHERS = 6
"""Members of the front that teach at most, of distinct sites: more of them make the same mistakes."""

OPENING = 4
"""Tokens that a teacher says under its intervention; the plain backbone goes on from there."""

CROSSED = ("floor", "preserve", "benign")
"""The kept pools far from the target, in which each prompt is crossed once with another."""


@dataclass(frozen=True)
class TrainingExamples:
    """What the student is given: examples, and which of them belong to which pool."""

    examples: list[Example]
    pools: dict[str, list[int]]
    held_out: list[int]
    """The examples of the validation split, which nothing is trained on."""
    record: dict[str, Any]


def prepare(
    run: Run, collected: Collected, front: Sequence[Member], *, augmented: bool = True
) -> TrainingExamples:
    """The student's examples, made from the backbone alone; ``augmented`` adds crossed prompts.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
    """
    limit = run.recipe.limit or PROMPTS
    train = run.select("train", *Role).capped(min(limit, PROMPTS))
    validation = run.select("validation", *Role).capped(min(limit, VALIDATION_PROMPTS))
    with run.progress("replies", len(train) + len(validation)) as advance:
        source = _Source(run, collected, front, advance)
        pools, opening, (consistent, targets) = source.pools(train)
        pools = source.augmented(pools) if augmented else pools
        others = source.pools(validation, opening)[0]
    if not pools["target"]:
        raise SearchError(
            "a student must have something to learn",
            got=f"no reply and no opening for {targets} target prompts",
            remedy="bring benign prompts that the backbone answers",
        )
    examples: list[Example] = []
    numbered: dict[str, list[int]] = {}
    for name, pool in pools.items():
        numbered[name] = list(range(len(examples), len(examples) + len(pool)))
        examples += pool
    trained = len(examples)
    examples += [example for pool in others.values() for example in pool]
    record = {
        "target_prompts": targets,
        "believed": consistent,
        "examples": {name: len(pool) for name, pool in numbered.items()},
        "held": len(examples) - trained,
    }
    return TrainingExamples(examples, numbered, list(range(trained, len(examples))), record)


@dataclass(frozen=True)
class _Source:
    """One backbone with its teachers, which makes examples of prompts."""

    run: Run
    collected: Collected
    front: Sequence[Member]
    advance: Advance

    @cached_property
    def _judge(self) -> RuleJudge:
        return RuleJudge(prefixes=self.collected.judge_prefixes)

    def pools(
        self, rows: PromptSet, opening: Reply | None = None
    ) -> tuple[dict[str, list[Example]], Reply, tuple[int, int]]:
        """The examples of each pool, the backbone's own opening, and how many targets have a whole reply.

        The opening is the commonest of the answers to the benign prompts, unless one is given.
        """
        run, backbone, end = self.run, self.run.backbone, self.run.backbone.stops[0]
        prompts: dict[str, list[list[int]]] = {name: [] for name in SHARES}
        for row, prompt in zip(rows, run.render(rows), strict=True):
            prompts[_pool(run, row)].append(prompt)
        target = prompts.pop("target")
        kept = {
            name: greedy_replies(backbone, pool, self._tokens(name), self.advance)
            for name, pool in prompts.items()
        }
        if opening is None:
            opening = common_opening([*kept["near_benign"], *kept["benign"]])
        ranked = self._ranked(target, opening)
        self.advance(len(target))
        whole = self_consistent(ranked, AGREEMENT, LEAST_CONSISTENT)
        # Where no reply is consistent, the opening is taught alone: the backbone goes on by itself.
        pools = {
            "target": [
                Example(tuple(prompt), taught, taught=True)
                for prompt, chosen, replies in zip(target, whole, ranked, strict=True)
                if (taught := (*chosen.reply, end) if chosen else opening_of(replies, opening))
            ]
        }
        for name, replies in kept.items():
            pools[name] = [
                Example(
                    tuple(prompt),
                    # With its end token, unless it was cut off before its end.
                    (*reply, end) if len(reply) < self._tokens(name) else tuple(reply),
                    taught=False,
                    # What the backbone answers on the floor stays as it is; it is not made surer.
                    floor="floor" in name and self._label(reply).refused,
                    near=name.startswith("near"),
                )
                for prompt, reply in zip(prompts[name], replies, strict=True)
            ]
        return pools, opening, (sum(taught is not None for taught in whole), len(target))

    def _tokens(self, pool: str) -> int:
        """The tokens of a kept reply at most."""
        recipe = self.run.recipe
        if "floor" in pool:
            return max(recipe.floor_tokens, self.collected.floor_tokens)
        return min(recipe.reply_tokens, REPLY_TOKENS)

    def _label(self, reply: Sequence[int]) -> Label:
        return self._judge.verdict(self.run.backbone.decode(list(reply))).label

    def _ranked(self, prompts: list[list[int]], opening: Reply) -> list[list[TaughtReply]]:
        """The replies to the target prompts, from the own opening and under the front's members."""
        backbone = self.run.backbone

        def refused(replies: Sequence[Reply]) -> list[bool]:
            return [label.refused or label.broken for label in map(self._label, replies)]

        distinct: dict[tuple[int, str], Member] = {}
        for member in self.front:
            key = (member.intervention.kernel.peak, member.intervention.method)
            distinct.setdefault(key, member)
        completions = Completions(backbone, prompts, self._tokens("target"))
        teachers = [completions.of([opening] * len(prompts), len(opening))]
        for member in list(distinct.values())[:TEACHERS]:
            with intervening(backbone, self.collected.directions, member.intervention):
                openings = greedy_replies(backbone, prompts, OPENING)
            teachers.append(completions.of(openings, OPENING))
        return ranked_replies(backbone, prompts, teachers, refused)

    def augmented(self, pools: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """The pools with prompts nobody wrote, on which the student must be the backbone all the same.

        What it is to be there needs no judge and no reply: the backbone's own streams and probabilities.
        So they cost nothing to label, and stand for the wordings that nobody collected. Of crossed target
        prompts the first word is taught alone, and only where the backbone refuses still.
        """
        backbone, seed = self.run.backbone, self.run.seed

        def crosses(name: str) -> list[Example]:
            return crossed(pools[name], len(pools[name]), shuffler(seed, "crossed", name))

        def first_words(examples: Sequence[Example]) -> list[int]:
            tokens: list[int] = next_token_logits(backbone, [e.prompt for e in examples]).argmax(-1).tolist()
            return tokens

        wider = {name: pools[name] + crosses(name) for name in CROSSED}
        if opened := crosses("target"):
            answers = {example.reply[0] for example in pools["target"]}
            refusals = set(first_words(pools["target"])) - answers
            wider["target"] = pools["target"] + [
                replace(example, reply=example.reply[:1], taught=True)
                for example, word in zip(opened, first_words(opened), strict=True)
                if word in refusals
            ]
        return {**pools, **wider}


def _pool(run: Run, row: Prompt) -> str:
    """The pool of examples that a prompt belongs to."""
    role = run.authorisation.role(row)
    near = row.domain in run.authorisation.domains
    return f"near_{role}" if near and role in (Role.FLOOR, Role.BENIGN) else str(role)


def crossed(examples: Sequence[Example], count: int, draw: Random) -> list[Example]:
    """So many prompts that begin as one example's and end as another's, with the latter's reply.

    What all prompts share, the chat template's beginning and end, stays whole.
    """
    if len(examples) < 2:
        return []
    prompts = [example.prompt for example in examples]
    before = shared(prompts)
    after = shared([prompt[before:][::-1] for prompt in prompts])
    contents = [prompt[before : len(prompt) - after] for prompt in prompts]
    made = []
    for _ in range(count):
        first, second = draw.sample(range(len(examples)), 2)
        begun, content, whole = contents[first], contents[second], prompts[second]
        middle = (*begun[: draw.randint(0, len(begun))], *content[draw.randint(0, len(content)) :])
        prompt = (*whole[:before], *middle, *whole[len(whole) - after :])
        made.append(replace(examples[second], prompt=prompt, taught=False))
    return made
