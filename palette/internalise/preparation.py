"""Training examples, made from the backbone alone; what is taught are its own replies without its refusal.

No reference answer is read. Each teacher opens a reply in its own way (an intervention during the
first tokens, or the backbone's own commonest opening on benign prompts) and lets the plain backbone
go on. Teachers check each other: a reply is ranked by how many teachers gave it and by how likely the
plain backbone finds it once it has begun. Interventions are alike, and so are the mistakes that they
make; so what they agree on does not outvote a backbone that opens by itself and answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from palette.authorisation import Role
from palette.backbones import Backbone, continuations, greedy_replies, next_token_logits, reply_logits
from palette.directions import Intervention, intervening
from palette.errors import SearchError
from palette.internalise.examples import SHARES, Example, Tokens, crossed
from palette.judging.judge import Label
from palette.judging.rules import RuleJudge
from palette.processes import Advance
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.space import Collected, Member
from palette.seeding import shuffler

PROMPTS, VALIDATION_PROMPTS = 240, 8
"""Train and validation prompts at most, a domain, kind and tier. The latter only end training."""
REPLY_TOKENS = 48
"""Tokens of a taught or kept reply at most: what decides whether a request is answered stands before."""
TEACHERS = 6
"""Members of the front that teach at most, of distinct sites: more of them make the same mistakes."""
OPENING = 4
"""Tokens that a teacher says under its intervention; the plain backbone goes on from there."""
AGREEMENT = 2
"""Teachers that must give the same reply for it to be taught whole."""
LEAST_CONSISTENT = 0.25
"""Share of target prompts that are taught a whole reply all the same, the likeliest: the other prompts
are taught an opening alone, from which nobody learns how to go on."""
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
    held_out = list(range(len(examples), len(examples) + sum(map(len, others.values()))))
    examples += [example for pool in others.values() for example in pool]
    counts = {name: len(pool) for name, pool in numbered.items()}
    record = {"target_prompts": targets, "believed": consistent, "examples": counts, "held": len(held_out)}
    return TrainingExamples(examples, numbered, held_out, record)


@dataclass(frozen=True)
class _Source:
    """One backbone with its teachers, which makes examples of prompts."""

    run: Run
    collected: Collected
    front: Sequence[Member]
    advance: Advance

    def pools(
        self, rows: PromptSet, opening: Tokens | None = None
    ) -> tuple[dict[str, list[Example]], Tokens, tuple[int, int]]:
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
        begun = [replies[0].reply[:1] if replies else opening for replies in ranked]
        pools = {
            "target": [
                Example(tuple(prompt), taught, taught=True)
                for prompt, chosen, first in zip(target, whole, begun, strict=True)
                if (taught := (*chosen.reply, end) if chosen else first)
            ]
        }
        for name, replies in kept.items():
            pools[name] = []
            for prompt, reply in zip(prompts[name], replies, strict=True):
                # With its end token, unless it was cut off before its end.
                whole_reply = (*reply, end) if len(reply) < self._tokens(name) else tuple(reply)
                # What the backbone answers on the floor stays as it is; it is not made surer.
                floor = "floor" in name and self._label(reply).refused
                pools[name].append(Example(tuple(prompt), whole_reply, False, floor, name.startswith("near")))
        return pools, opening, (sum(taught is not None for taught in whole), len(target))

    def _tokens(self, pool: str) -> int:
        """The tokens of a kept reply at most."""
        recipe = self.run.recipe
        if "floor" in pool:
            return max(recipe.floor_tokens, self.collected.floor_tokens)
        return min(recipe.reply_tokens, REPLY_TOKENS)

    def _label(self, reply: Sequence[int]) -> Label:
        judge = RuleJudge(prefixes=self.collected.judge_prefixes)
        return judge.verdict(self.run.backbone.decode(list(reply))).label

    def _ranked(self, prompts: list[list[int]], opening: Tokens) -> list[list[TaughtReply]]:
        """The replies to the target prompts, from the own opening and under the front's members."""
        backbone = self.run.backbone

        def refused(replies: Sequence[Tokens]) -> list[bool]:
            return [label.refused or label.broken for label in map(self._label, replies)]

        distinct: dict[tuple[int, str], Intervention] = {}
        for chosen in (member.intervention for member in self.front):
            distinct.setdefault((chosen.kernel.peak, chosen.method), chosen)
        completions = Completions(backbone, prompts, self._tokens("target"))
        teachers = [completions.of([opening] * len(prompts), len(opening))]
        for intervention in list(distinct.values())[:TEACHERS]:
            with intervening(backbone, self.collected.directions, intervention):
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


@dataclass(frozen=True)
class TaughtReply:
    """The reply that a target prompt is taught: how many teachers gave it, and how likely it is."""

    reply: Tokens
    votes: int
    likelihood: float
    """Mean log-likelihood of the tokens after the first by the plain backbone, in nats a token."""


class Completions:
    """Replies to some prompts that were begun and that the plain backbone ends.

    A greedy reply has the same end from each of its beginnings on. So teachers that open alike, or as
    the backbone itself goes on, cost one reply together.
    """

    def __init__(self, backbone: Backbone, prompts: Sequence[list[int]], longest: int) -> None:
        """``longest`` is the number of tokens that follow an opening at most."""
        self._backbone, self._prompts, self._longest = backbone, prompts, longest
        self._known: dict[tuple[int, Tokens], Tokens] = {}

    def of(self, openings: Sequence[Sequence[int]], opening: int) -> list[Tokens]:
        """The whole reply to each prompt; an opening that has ended before ``opening`` tokens stays."""
        begun = list(enumerate(map(tuple, openings)))
        fresh = [key for key in begun if len(key[1]) >= opening and key not in self._known]
        prompts = [self._prompts[i] for i, _ in fresh]
        whole = continuations(self._backbone, prompts, [words for _, words in fresh], self._longest)
        for (i, words), reply in zip(fresh, map(tuple, whole), strict=True):
            # One that was cut off would be longer, had it begun with more.
            last = len(reply) if len(reply) < len(words) + self._longest else len(words)
            self._known |= {(i, reply[:length]): reply for length in range(len(words), last + 1)}
        return [self._known[key] if len(key[1]) >= opening else key[1] for key in begun]


def common_opening(replies: Sequence[Sequence[int]]) -> Tokens:
    """The commonest first token of replies; nothing where there is none."""
    counts = Counter(tuple(reply[:1]) for reply in replies if reply)
    return min(counts, key=lambda opening: (-counts[opening], opening), default=())


def ranked_replies(
    backbone: Backbone,
    prompts: Sequence[list[int]],
    teachers: Sequence[Sequence[Tokens]],
    refused: Callable[[Sequence[Tokens]], list[bool]],
) -> list[list[TaughtReply]]:
    """For each prompt, the distinct replies that are not ``refused``, most consistent first.

    The first teacher is the plain backbone after its own opening: its reply, where it is no refusal, comes
    first whatever the others say, and needs one of them to be agreed with.
    """
    rejected = [refused(replies) for replies in teachers]
    pairs: list[tuple[int, Tokens, int]] = []
    for i in range(len(prompts)):
        given = Counter(replies[i] for replies, bad in zip(teachers, rejected, strict=True) if not bad[i])
        pairs += [(i, reply, count) for reply, count in sorted(given.items()) if len(reply) > 1]
    logits = reply_logits(backbone, [prompts[i] for i, _, _ in pairs], [r for _, r, _ in pairs])
    ranked: list[list[TaughtReply]] = [[] for _ in prompts]
    for (i, reply, votes), row in zip(pairs, logits, strict=True):
        begun = torch.tensor(reply[1:], device=row.device).unsqueeze(-1)
        likelihood = float(row[1:].log_softmax(-1).gather(-1, begun).mean())
        ranked[i].append(TaughtReply(reply, votes, likelihood))
    return [
        sorted(replies, key=lambda x: (x.reply != plain, -x.votes, -x.likelihood, x.reply))
        for plain, replies in zip(teachers[0], ranked, strict=True)
    ]


def self_consistent(
    ranked: Sequence[Sequence[TaughtReply]], agreement: int, least: float
) -> list[TaughtReply | None]:
    """Each prompt's first reply where ``agreement`` teachers gave it, else None.

    Where these are fewer than the share ``least`` of the prompts, the replies that the plain backbone
    finds likeliest fill them up.
    """
    best = [replies[0] if replies else None for replies in ranked]
    kept = {i for i, taught in enumerate(best) if taught and taught.votes >= agreement}
    others = [(-taught.likelihood, i) for i, taught in enumerate(best) if taught and i not in kept]
    missing = math.ceil(least * len(best)) - len(kept)
    kept |= {i for _, i in sorted(others)[: max(0, missing)]}
    return [taught if i in kept else None for i, taught in enumerate(best)]
