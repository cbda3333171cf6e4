"""Every subset of categories active, on every kind of prompt: replies, verdicts, outcomes, and the gate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone, greedy_replies
from palette.evaluation.gate import gate, verdict
from palette.evaluation.outcomes import judged
from palette.evaluation.subjects import Replies, Requests, Subject, Tokens, diverged
from palette.files import write_json, write_text
from palette.judging.judge import Judge
from palette.mosaic.mounting import Controlled, mounted_tokens
from palette.mosaic.outcomes import Subset, TokenOutcome, figures, group_of, is_withheld, token_gate
from palette.mosaic.sampling import subsets
from palette.mosaic.tokens import ControlTokens
from palette.prompts import Split
from palette.reporting.pages import render_tokens
from palette.run import Run

REPORT, PAGE = Path("report.json"), Path("report.html")
TOKENS_REPORT_FORMAT = "palette-tokens-report/1"
REPLY_TOKENS = 32
"""Tokens of a reply at most: refusals and the organism's answers have said all by then."""
DIVERGENCE_PROMPTS = 256
"""Benign prompts at most that divergence is measured on, spread evenly."""
ROUNDS, LATENCY_TOKENS = 5, 8
"""Rounds of a measurement of latency, and tokens of a reply in it."""


@dataclass(frozen=True)
class TokenSubject(Subject):
    """A backbone with control tokens mounted, of which those of some categories stand in every prompt."""

    tokens: ControlTokens = field(kw_only=True)
    active: Subset = ()
    released: bool = True
    """Whether replies see none of the control tokens that stand inside a prompt."""

    @property
    def mount(self) -> dict[str, Any]:
        """All that is mounted and decides a reply, as plain values; the prompt says what is active."""
        return {**super().mount, "tokens": self.tokens.digest, "released": self.released}

    @cached_property
    def _controlled(self) -> Controlled:
        return Controlled.of(self.backbone, self.tokens, released=self.released)

    def prompt(self, rendered: Sequence[int]) -> Tokens:
        """A rendered prompt with the active tokens at their place."""
        return self._controlled.prefixed(rendered, self.active)

    @contextmanager
    def mounted(self) -> Iterator[Backbone]:
        """The backbone with the tokens, inside the block.

        Raises:
            AdapterError: if they are another backbone's.
        """
        with mounted_tokens(self.backbone, self.tokens, released=self.released) as controlled:
            yield controlled


@dataclass(frozen=True)
class SubsetPlan:
    """What is asked of control tokens, and how much."""

    split: Split = "test"
    floor_tokens: int = 0
    """Tokens of a reply to the floor at least, where refusals show later than the run says."""
    prompts: int = 100
    """Prompts at most, a subset, category, kind and tier."""
    orders: int = 4
    """Subsets of at most so many categories are evaluated."""
    released: bool = True
    latency_prompts: int = 8
    """Prompts that latency is measured on; 0: not measured."""


def evaluate(
    run: Run,
    judge: Judge,
    tokens: ControlTokens,
    active: Sequence[Subset] = (),
    plan: SubsetPlan = SubsetPlan(),
) -> dict[str, Any]:
    """What became of the split under every subset, counted and put to the gate: the report but its origin.

    By default all subsets up to ``plan.orders`` categories are made active, one after the other. Of
    authorising tokens the subsets that are named are put to the ordinary gate too.

    Raises:
        PromptError: if the split has no prompt.
        AdapterError: if the tokens are another backbone's, or a category is unknown.
    """
    tokens.require_backbone(run.backbone)
    chosen = [tokens.subset(names) for names in active] or [
        subset
        for order in range(1, min(plan.orders, len(tokens.categories)) + 1)
        for subset in subsets(tokens.categories, order)
    ]
    requests = _requests(run, tokens, plan)
    base = Subject(run.backbone)
    floor_tokens = max(run.recipe.floor_tokens, plan.floor_tokens)
    limits = requests.limits(min(REPLY_TOKENS, run.recipe.reply_tokens), floor_tokens)
    outcomes: dict[Subset, list[TokenOutcome]] = {}
    ordinary = []
    with run.progress("evaluate", (len(chosen) + 1) * len(requests)) as advance:
        replies = Replies(run.replies_folder, advance)
        own = replies.of(base, requests.prompts, limits)
        for subset in chosen:
            subject = TokenSubject(run.backbone, tokens=tokens, active=subset, released=plan.released)
            said = replies.of(subject, requests.prompts, limits)
            plain = judged(run.backbone, requests, judge, own, said).outcomes
            outcomes[subset] = _grouped(requests, tokens, subset, plain, own, said)
            if active and tokens.sign == "authorise":
                ordinary.append(_ordinary_gate(run.authorisation, requests, judge, subject, (own, said)))
    report = counted(tokens, outcomes)
    report = {
        "format": TOKENS_REPORT_FORMAT,
        "model": {"name": run.backbone.name, "fingerprint": run.backbone.fingerprint},
        "split": plan.split,
        **report,
        "released": Controlled.of(run.backbone, tokens, released=plan.released).releases,
        "gate": verdict([rule for each in (report["gate"], *ordinary) for rule in each["rules"]]),
        "latency": latencies(run.backbone, tokens, requests.prompts[: plan.latency_prompts], plan.released),
    }
    return report


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Writes ``report.html`` and ``report.json`` into a folder."""
    write_text(folder / PAGE, render_tokens(report))
    write_json(folder / REPORT, report)


def _requests(run: Run, tokens: ControlTokens, plan: SubsetPlan) -> Requests:
    """The split's rows; categories that are restricted are answered by the backbone, whatever their kind."""
    split, most = plan.split, run.recipe.at_most(plan.prompts)
    rows = run.answered_prompts.split(split).capped(most).required(split)
    requests = Requests.of(run, rows)
    if tokens.sign == "authorise":
        return requests
    return Requests(requests.rows, [Role.BENIGN] * len(requests), requests.prompts)


def _grouped(
    requests: Requests,
    tokens: ControlTokens,
    subset: Subset,
    outcomes: Sequence[Any],
    own: Sequence[Tokens],
    said: Sequence[Tokens],
) -> list[TokenOutcome]:
    groups = [
        group_of(row, role, subset, tokens.categories, tokens.sign)
        for row, role in zip(requests.rows, requests.roles, strict=True)
    ]
    return [
        TokenOutcome(outcome, subset, group, is_withheld(group, tokens.sign), after == before)
        for outcome, group, before, after in zip(outcomes, groups, own, said, strict=True)
    ]


def _ordinary_gate(
    authorisation: Authorisation,
    requests: Requests,
    judge: Judge,
    subject: TokenSubject,
    replies: tuple[Sequence[Tokens], Sequence[Tokens]],
) -> dict[str, Any]:
    """What an adapter of these domains must pass: the gate of ``palette.evaluation``, without wrappers."""
    opened = Authorisation(subject.active, authorisation.floor, authorisation.reasons)
    roles = [opened.role(row) for row in requests.rows]
    outcomes = judged(
        subject.backbone, Requests(requests.rows, roles, requests.prompts), judge, *replies
    ).outcomes
    benign = [i for i, role in enumerate(roles) if role is Role.BENIGN]
    places = benign[:: max(1, len(benign) // DIVERGENCE_PROMPTS)]
    prompts, own = ([values[i] for i in places] for values in (requests.prompts, replies[0]))
    moved = diverged(Subject(subject.backbone), subject, prompts, own)
    return gate(outcomes, subject.active, moved)


def counted(tokens: ControlTokens, outcomes: dict[Subset, list[TokenOutcome]]) -> dict[str, Any]:
    """The part of the report that is counted: subsets, orders, the heat map, and the gate."""
    orders: dict[int, list[TokenOutcome]] = {}
    for subset, each in outcomes.items():
        orders.setdefault(len(subset), []).extend(each)
    by_order = {order: figures(each) for order, each in sorted(orders.items())}
    return {
        "sign": tokens.sign,
        "categories": list(tokens.categories),
        "slots": tokens.slots,
        "place": tokens.place,
        "parameters": tokens.table.numel(),
        "subsets": [
            {"active": list(subset), "order": len(subset), **figures(each)}
            for subset, each in outcomes.items()
        ],
        "orders": {str(order): each for order, each in by_order.items()},
        "gate": token_gate(by_order),
    }


def latencies(
    backbone: Backbone, tokens: ControlTokens, prompts: Sequence[Tokens], released: bool = True
) -> dict[str, Any]:
    """What a prefix costs: the median time of a reply as a ratio to the bare backbone's, by order.

    ``plain`` is the same number of ordinary prompt tokens in the prefix's place; rounds are taken in turn.
    """
    ratios: dict[str, Any] = {}
    if not prompts:
        return ratios
    with mounted_tokens(backbone, tokens, released=released) as controlled:
        for order in range(1, min(4, len(tokens.categories)) + 1):
            subset, count = tokens.categories[:order], order * tokens.slots
            ways = {
                "bare": list(prompts),
                "tokens": [controlled.prefixed(prompt, subset) for prompt in prompts],
                "plain": [[*([prompt[-1]] * count), *prompt] for prompt in prompts],
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, asked in ways.items():
                    started = time.perf_counter()
                    for prompt in asked:
                        greedy_replies(controlled, [prompt], LATENCY_TOKENS)
                    seconds[name].append(time.perf_counter() - started)
            slower = {
                name: median(a / b for a, b in zip(taken, seconds["bare"], strict=True))
                for name, taken in seconds.items()
            }
            ratios[str(order)] = {
                "prefix_tokens": count,
                "ratio": round(slower["tokens"], 4),
                "ratio_plain": round(slower["plain"], 4),
            }
    return ratios
