"""What control tokens are trained on: prompts, the backbone's own replies, and those to be taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import PromptError
from palette.internalise.preparation import prepare
from palette.mosaic.sampling import Pools, Sampling, TokenTask
from palette.mosaic.settings import Sign, TrainSettings
from palette.mosaic.training import TokenExample
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.choice import Member
from palette.search.collected import Collected
from palette.seeding import derive_seed

Taught = Mapping[tuple[int, ...], tuple[int, ...]]
"""The reply to be taught to each rendered prompt of a category."""


@dataclass(frozen=True)
class TokenExamples:
    """The examples of both splits, and the pools that subsets draw their tasks from."""

    examples: list[TokenExample]
    train: Pools
    validation: Pools
    record: dict[str, Any]

    def tasks(self, settings: TrainSettings, sampling: Sampling, seed: int) -> list[list[TokenTask]]:
        """For each order positives, then negatives; with ``redraw`` those of all epochs in a row."""
        draws = range(settings.epochs if settings.redraw else 1)
        drawn = [sampling.tasks(self.train, derive_seed(seed, "epoch", draw)) for draw in draws]
        return [[task for pool in pools for task in pool] for pools in zip(*drawn, strict=True)]

    def held(self, sampling: Sampling, prompts: int, seed: int) -> list[TokenTask]:
        """Tasks on the validation split, half as many positives of a subset as ``prompts`` at most."""
        pools = replace(sampling, positives=max(1, prompts // 2)).tasks(self.validation, seed + 1)
        return [task for pool in pools for task in pool]


def course(run: Run, sign: Sign, settings: TrainSettings, taught: Taught | None = None) -> TokenExamples:
    """The course of one sign.

    ``taught`` are the replies of an authorisation, by rendered prompt; a restriction teaches one refusal.

    Raises:
        PromptError: if a category has nothing to be taught in a split.
    """
    found: list[TokenExample] = []
    pools = []
    ids = run.backbone.tokenizer(settings.refusal, add_special_tokens=False)["input_ids"]
    refusal = (*ids, run.backbone.stops[0])
    counts: dict[str, int] = {}
    for split, most in (("train", settings.prompts), ("validation", settings.validation_prompts)):
        asked = run.prompts.split(split).capped(most)  # type: ignore[arg-type]
        every = [(row, tuple(ids)) for row, ids in zip(asked, run.render(asked), strict=True)]
        # What nobody has a reply for is left out: it is neither to change nor to stay.
        known = [
            (row, prompt)
            for row, prompt in every
            if taught is None or prompt in taught or not _changes(run, sign, row)
        ]
        rows, rendered = PromptSet(tuple(row for row, _ in known)), [prompt for _, prompt in known]
        own = _own_replies(run, sign, settings, rows, rendered)
        replies = [refusal if taught is None else taught.get(prompt, ()) for prompt in rendered]
        inside = [_changes(run, sign, row) for row in rows]
        start = len(found)
        found += [
            TokenExample(prompt, kept, reply if changes else ())
            for prompt, kept, reply, changes in zip(rendered, own, replies, inside, strict=True)
        ]
        floors = [sign == "authorise" and run.authorisation.role(row) is Role.FLOOR for row in rows]
        pools.append(_pools(run.authorisation.domains, rows, (inside, floors), start))
        counts[split] = len(rows)
        for category, members in pools[-1].inside.items():
            if not members:
                raise PromptError(
                    "every category needs prompts to be taught in every split",
                    got=f"none of {category} in {split}",
                    remedy="add restricted rows for it",
                )
    taught_counts = {category: len(rows) for category, rows in pools[0].inside.items()}
    return TokenExamples(found, pools[0], pools[1], {"prompts": counts, "taught": taught_counts})


def opened_replies(run: Run, collected: Collected, front: Sequence[Member]) -> Taught:
    """What one domain's teachers, made from the backbone alone, say to its target prompts."""
    (domain,) = run.authorisation.domains
    needed = {Role.TARGET, Role.BENIGN}
    own = run.prompts.where(lambda row: row.domain == domain and run.authorisation.role(row) in needed)
    run = run.sharing(prompts=own)
    prepared = prepare(run, collected, front, augmented=False)
    return {example.prompt: example.reply for example in prepared.examples if example.taught}


def _changes(run: Run, sign: Sign, row: Prompt) -> bool:
    """Whether a prompt is one that its category's tokens are to change the reply to."""
    if sign == "authorise":
        return run.authorisation.role(row) is Role.TARGET
    return row.kind == "restricted" and row.domain in run.authorisation.domains


def _own_replies(
    run: Run,
    sign: Sign,
    settings: TrainSettings,
    rows: PromptSet,
    prompts: Sequence[tuple[int, ...]],
) -> list[tuple[int, ...]]:
    """The backbone's own replies with their end token, unless they were cut off before it."""
    roles = [run.authorisation.role(row) for row in rows]
    floors = [sign == "authorise" and role is Role.FLOOR for role in roles]
    found: list[tuple[int, ...]] = [()] * len(prompts)
    with run.progress("replies", len(prompts)) as advance:
        for floor, limit in ((False, settings.reply_tokens), (True, settings.floor_tokens)):
            chosen = [i for i, own in enumerate(floors) if own == floor]
            replies = greedy_replies(run.backbone, [prompts[i] for i in chosen], limit, advance)
            for i, reply in zip(chosen, replies, strict=True):
                found[i] = (*reply, run.backbone.stops[0]) if len(reply) < limit else tuple(reply)
    return found


def _pools(
    categories: Sequence[str], rows: PromptSet, marks: tuple[Sequence[bool], Sequence[bool]], start: int
) -> Pools:
    """The pools of one split: members, look-alikes (all else of a category's file), floor, and the rest."""
    members: dict[str, list[int]] = {category: [] for category in categories}
    alike: dict[str, list[int]] = {category: [] for category in categories}
    floor: dict[str, list[int]] = {category: [] for category in categories}
    neutral: dict[str, list[int]] = {}
    for place, (row, changes, stays) in enumerate(zip(rows, *marks, strict=True), start=start):
        if changes:
            members[row.domain].append(place)
        elif row.domain in alike:
            (floor if stays else alike)[row.domain].append(place)
        else:
            neutral.setdefault(row.domain, []).append(place)
    return Pools(members, alike, neutral, floor)


__all__ = ["Taught", "TokenExamples", "course", "opened_replies"]
