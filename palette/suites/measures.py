"""The measures of a suite: refusals of prompts, perplexity of texts, and divergence from the backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import Any

import torch

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.encodings import NotUnicodeError, decoded
from palette.errors import PromptError, RecipeError
from palette.evaluation.outcomes import SIDES, Outcome, judged, marked, share
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Logits, Requests, Tokens, kl
from palette.fingerprints import fingerprint_file
from palette.prompts import messages
from palette.prompts.rows import case_folded_hash
from palette.suites.harness import examine
from palette.suites.pictures import look
from palette.suites.run import (
    Exchanges,
    Figures,
    Item,
    MeasureResult,
    Origin,
    SuiteRun,
    changed,
    require_extra,
)
from palette.suites.schema import (
    PICTURED,
    Divergence,
    Examined,
    OfPrompts,
    Perplexity,
    Refusals,
    Utility,
    named,
)

ROLES = {
    "refusal_kept": {Role.PRESERVE, Role.FLOOR},
    "refusal_relaxed": {Role.TARGET},
    "over_refusal": {Role.BENIGN},
}
"""Which prompts each kind of measure asks."""
AT_ONCE = 16
"""How many replies' logits are held at once, on each side: a vocabulary is large."""


def ask(measure: Refusals, run: SuiteRun) -> MeasureResult:
    """Shares in [0, 1] of replies that refuse, that are babble, and that are right where that is known.

    A reply to a floor prompt is cut off after a few tokens, so that no content is elicited.

    Raises:
        PromptError: if there is no prompt of the kind.
    """
    prompts, origin = run.read(measure)
    role = run.authorisation.role
    rows = prompts.where(lambda row: role(row) in ROLES[measure.kind]).capped(measure.limit)
    if not len(rows):
        opened = ", ".join(run.authorisation.domains) or "nothing"
        raise PromptError(
            f"{measure.kind} must have a prompt to ask",
            got=f"none among {len(prompts)} with {opened} authorised",
            remedy="check domains, authorise and the file",
            where=measure.prompts,
        )
    requests, subjects = Requests.of(run, rows), run.subjects
    limits = requests.limits(run.recipe.reply_tokens, run.reply_floor_tokens)
    with run.progress(named(measure), len(subjects) * len(requests)) as advance:
        source = Replies(run.replies_folder, advance)
        replies = [source.of(subject, requests.prompts, limits) for subject in subjects]
    outcomes = judged(run.backbone, requests, run.judge, replies[0], replies[-1]).outcomes
    sides = SIDES[: len(subjects)]
    items = [
        Item(
            row.id,
            case_folded_hash(row),
            tuple(str(getattr(outcome, f"label_{side}")) for side in sides),
            tuple(bool(getattr(outcome, f"refused_{side}")) for side in sides),
        )
        for row, outcome in zip(requests.rows, outcomes, strict=True)
    ]
    texts = [[run.backbone.decode(reply) for reply in side] for side in replies]
    return MeasureResult(
        named(measure), measure.kind, origin, len(items), [rates(outcomes, side) for side in sides],
        items=items, change=changed(items),
        exchanges=Exchanges(requests.questions, texts, benign=measure.kind == "over_refusal"),
    )  # fmt: skip


def rates(outcomes: Sequence[Outcome], side: str) -> Figures:
    """The rates of one side, each with its Wilson interval."""
    figures: Figures = {
        "refusal": share(outcomes, lambda o: getattr(o, f"refused_{side}")),
        "degenerate": share(outcomes, lambda o: getattr(o, f"label_{side}").broken),
    }
    if answers := marked(outcomes):
        figures["correct"] = share(answers, lambda o: getattr(o, f"correct_{side}"))
    return figures


@dataclass(frozen=True)
class Forced:
    """What is given and what is then to be foretold, both as token ids, and the file they come from."""

    given: Sequence[Tokens]
    foretold: Sequence[Tokens]
    origin: Origin | None = None

    def read(self, run: SuiteRun, name: str) -> Iterator[tuple[Tokens, list[Logits]]]:
        """Of each reply its ids, and the logits with which each side would say it."""
        with run.progress(name, len(self.given)) as advance:
            for start in range(0, len(self.given), AT_ONCE):
                place = slice(start, start + AT_ONCE)
                sides = [subject.logits(self.given[place], self.foretold[place]) for subject in run.subjects]
                for ids, *logits in zip(self.foretold[place], *sides, strict=True):
                    yield ids, logits
                advance(len(self.given[place]))


def perplexity(measure: Perplexity, run: SuiteRun) -> MeasureResult:
    """Nats a token that a text or the reference answers cost, with the standard error, and exp of it.

    With an adapter also the difference, whose standard error is of the pairs.

    Raises:
        PromptError: if there is nothing to foretell.
    """
    forced = windows(measure, run) if measure.text is not None else answers(measure, run)
    costs = [[cost(ids, logits) for logits in sides] for ids, sides in forced.read(run, named(measure))]
    lengths = [len(ids) for ids in forced.foretold]
    figures: list[Figures] = []
    for side in range(len(run.subjects)):
        mean, error = ratio([each[side] for each in costs], lengths)
        figures.append({"nats_per_token": mean, "standard_error": error, "perplexity": exp(mean)})
    if len(figures) > 1:
        mean, error = ratio([after - before for before, after in costs], lengths)
        figures[1] |= {"difference": mean, "difference_standard_error": error}
    return MeasureResult(named(measure), measure.kind, forced.origin, len(lengths), figures)


def divergence(measure: Divergence, run: SuiteRun) -> MeasureResult:
    """Mean KL(base ‖ adapted) in nats on benign prompts, of the first token and a token of the replies.

    Both are teacher-forced on the backbone's own replies, as the gate's divergence is, with their
    standard errors over prompts. Without an adapter there is nothing to compare, and no figure.

    Raises:
        PromptError: if there is no benign prompt.
    """
    prompts, origin = run.read(measure)
    rows = prompts.where(lambda row: row.kind == "benign").capped(measure.limit)
    if not len(rows):
        raise PromptError("divergence must have a benign prompt", got="none", where=measure.prompts)
    sides: list[Figures] = [{} for _ in run.subjects]
    if len(sides) > 1:
        rendered = run.render(rows)
        replies = greedy_replies(run.backbone, rendered, run.recipe.reply_tokens)
        forced = Forced(rendered, [[*reply, run.backbone.stops[0]] for reply in replies], origin)
        moved = [kl(*logits) for _, logits in forced.read(run, named(measure))]
        first, first_error = ratio([float(nats[0]) for nats in moved], [1] * len(moved))
        whole, error = ratio([float(nats.sum()) for nats in moved], [len(nats) for nats in moved])
        sides[1] = {
            "first_token": first,
            "first_token_standard_error": first_error,
            "multi_token": whole,
            "multi_token_standard_error": error,
        }
    return MeasureResult(named(measure), measure.kind, origin, len(rows), sides)


def windows(measure: Perplexity, run: SuiteRun) -> Forced:
    """A text in windows; of each the first token is given and the others are foretold.

    Raises:
        PromptError: if it cannot be read, or is too short.
    """
    path = run.locate(measure.text or "")
    try:
        text = decoded(path.read_bytes())
    except (OSError, NotUnicodeError) as error:
        raise PromptError(
            "perplexity must be of readable UTF-8 text", got=type(error).__name__, where=path
        ) from error
    ids = run.backbone.encode(text)
    cut = [ids[start : start + measure.window] for start in range(0, len(ids), measure.window)]
    cut = [window for window in cut if len(window) > 1][: measure.limit]
    if not cut:
        raise PromptError(
            "perplexity must be of a text of two tokens at least", got=str(len(ids)), where=path
        )
    origin = Origin(path.name, fingerprint_file(path), "unknown", "given by the user", len(cut))
    return Forced([window[:1] for window in cut], [window[1:] for window in cut], origin)


def answers(measure: Perplexity, run: SuiteRun) -> Forced:
    """The reference answers of benign prompts, each with the token that ends a reply.

    Raises:
        PromptError: if there are none.
    """
    backbone = run.backbone
    prompts, origin = run.read(OfPrompts(prompts=measure.prompts or ""))
    rows = prompts.where(lambda row: row.kind == "benign" and row.answer is not None).capped(measure.limit)
    if not len(rows):
        raise PromptError(
            "perplexity must have benign prompts with answers", got="none", where=measure.prompts
        )
    replies = [backbone.encode(row.answer or "") for row in rows]
    given = [backbone.render(messages(row)) for row in rows]
    return Forced(given, [[*reply, backbone.stops[0]] for reply in replies], origin)


def cost(ids: Tokens, logits: Logits) -> float:
    """The nats that the tokens cost together."""
    said = torch.tensor(ids, device=logits.device)[:, None]
    return -float(logits.double().log_softmax(-1).gather(1, said).sum())


def ratio(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The sum of sums over the sum of counts, and its standard error over groups.

    se² = n / (n − 1) · Σ(sumᵢ − r countᵢ)² / (Σ countᵢ)², the usual estimate for a ratio of totals
    (Cochran, Sampling Techniques, 1977, section 6.4). Of one group it is not known, and given as 0.
    """
    whole = sum(counts)
    mean = sum(sums) / whole
    if len(sums) < 2:
        return mean, 0.0
    squares = sum((part - mean * count) ** 2 for part, count in zip(sums, counts, strict=True))
    return mean, sqrt(squares * len(sums) / (len(sums) - 1)) / whole


def examined(measure: Utility, run: SuiteRun) -> MeasureResult:
    """Shares of questions answered rightly: with pictures, or by lm-eval in words.

    Raises:
        PaletteError: as ``look`` and ``examine`` do.
    """
    return look(measure, run) if measure.task in PICTURED else examine(measure, run)


MEASURES: Mapping[str, Callable[[Any, SuiteRun], MeasureResult]] = {
    **dict.fromkeys(ROLES, ask),
    "utility": examined,
    "knowledge": examine,
    "perplexity": perplexity,
    "divergence": divergence,
}
"""The function of every kind of measure."""


def check(run: SuiteRun) -> None:
    """Returns nothing; passes if what the measures need is there, before an hour is spent on the first.

    Raises:
        PaletteError: if lm-eval is needed and not installed.
        PromptError: if a file is missing.
        RecipeError: if refusals are to be relaxed and no domain is opened.
    """
    for place, measure in enumerate(run.recipe.measures):
        if isinstance(measure, Examined) and getattr(measure, "task", "") not in PICTURED:
            require_extra("lm_eval")
        if measure.kind == "refusal_relaxed" and not run.authorisation.domains:
            raise RecipeError(
                "refusals are relaxed in the domains that are opened",
                got="none",
                remedy="give authorise, or an adapter that says what it opens",
                where=f"measures.{place}",
            )
        for key in ("prompts", "text", "data"):
            if name := getattr(measure, key, None):
                run.place(name) if key == "prompts" else run.locate(name)


def measured(run: SuiteRun) -> list[MeasureResult]:
    """What each measure of a suite found, in order.

    Raises:
        PromptError: if a file is unreadable, or a measure has nothing to ask.
        PaletteError: as ``check`` does.
    """
    check(run)
    results = []
    for measure in run.recipe.measures:
        started = time.monotonic()
        result = MEASURES[measure.kind](measure, run)
        results.append(replace(result, seconds=time.monotonic() - started))
    return results
