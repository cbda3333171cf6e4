"""Training examples, made from the backbone alone; what is taught are its own replies without its refusal.

No reference answer is read. Every target prompt is taught the whole reply that its teachers believe, or
nothing: from half a reply a student learns to relapse after it, and of teachers that are right in two
replies of three it averages the noise. On all other prompts it learns to stay as the backbone is. Both it
learns of names that nobody wrote, too, lest it know by heart those that somebody did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import SearchError
from palette.evaluation.baseline import Baseline
from palette.internalise.augmentation import crossed, crossed_alike
from palette.internalise.effort import MOST, teaching
from palette.internalise.examples import SHARES, Example, Pools, Tokens, decided
from palette.internalise.openings import MOSTLY
from palette.internalise.renaming import Renaming
from palette.internalise.teachers import PROMPTS, TRIAL_PROMPTS, reply_limit, teaching_of
from palette.internalise.teaching import taught_examples
from palette.processes import Advance
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.search.space import Collected, Member
from palette.seeding import evenly, shuffler

VALIDATION_PROMPTS = 8
"""Validation prompts at most, a domain, kind and tier, which only end training."""
WRITTEN, CROSSED_EACH = {"target": 320, "near_floor": 72}, 8
"""Where fewer prompts of the target, or of its own floor, are written, crossed ones are added, so many for
each at most. A few floor prompts teach what the floor is; many, being near, close the target."""
RENAMED, RENAMED_EACH = {"target": 600, "near_floor": 300}, 16
"""Prompts of other names that are added, so many for each at most; in other pools, one for each."""
AGREED = 0.9
"""Share of the target prompts to which most teachers say the same where no tutor is worth its time."""
LEAKED = 4
"""How often a kept prompt is drawn that an earlier student replies to otherwise, for each time another is."""
CROSSED = ("floor", "preserve", "near_benign", "benign")
"""The kept pools in which each prompt is crossed once with another, whatever comes of it."""


@dataclass(frozen=True)
class TrainingExamples:
    """What the student is given: examples, and which of them belong to which pool."""

    examples: list[Example]
    pools: dict[str, list[int]]
    held_out: list[int]
    """The examples of the validation split, which nothing is trained on."""
    record: dict[str, Any]
    named: bool = False
    """Whether prompts of other names are among them."""


Tutor = Callable[[TrainingExamples], Adapter]
"""Makes an adapter of examples of target prompts alone."""


class Preparation:
    """The prompts of a run, the backbone's own replies to them, and its teachers, whom students join.

    ``members`` are trials of the search that may teach; ``baseline`` is what collect read, whose judge says
    what is no answer and is never taught.
    """

    def __init__(self, run: Run, collected: Collected, members: Sequence[Member], baseline: Baseline) -> None:
        self._run, self._collected = run, collected
        self._judge, self._baseline = baseline.judge_of("rule"), baseline
        self._students: list[Adapter] = []
        self._rows: dict[Tokens, Prompt] = {}
        self._judged: dict[Tokens, bool] = {}
        limit = run.recipe.limit or PROMPTS
        train = run.select("train", *Role).capped(min(limit, PROMPTS))
        validation = run.select("validation", *Role).capped(min(limit, VALIDATION_PROMPTS))
        with run.progress("replies", len(train) + len(validation)) as advance:
            self._targets, self._kept = self._pools(train, advance)
            self._held_targets, self._held_kept = self._pools(validation, advance)
        self._refusals = self._own_refusals()
        told, _ = self._decided(self._kept)
        answers = [each for name in ("near_benign", "benign") for each in told[name] if not each.refused]
        count, more = teaching(run.backbone, self._targets, reply_limit(run))
        self._teaching = teaching_of(run, collected, members, self._judge, answers, count)
        # A model whose teachers are few has no time for a tutor, nor for a second student.
        self.hasty = count < MOST
        others = [*self._refusals, *(each for pool in self._kept.values() for each in pool)]
        draw = shuffler(run.seed, "spare")
        with run.progress("spare names", 1) as advance:
            self._renaming = Renaming.learned(run.backbone, self._rows, answers, others, draw)
            advance(1)
        floor = [list(example.prompt) for example in self._kept["near_floor"]]
        asked = [prompt for prompt, _ in self._crossed("target", self._targets, more)]
        self._asked, self._more = self._targets + asked, more - len(asked)
        self._kept["near_floor"] += [
            self._as_kept("near_floor", *each) for each in self._crossed("near_floor", floor, more)
        ]

    def engage(self, tutor: Tutor) -> None:
        """Makes the adapter of a tutor one of the teachers, unless these agree without it, or time is short.

        It need keep nothing, so that it is soon trained, and averages what is noise in its own teachers.
        """
        if self.hasty:
            return
        replies = self._teaching.replies(self._asked)
        agreed = [each.share > MOSTLY for each in replies if each]
        if sum(agreed) > AGREED * len(agreed):
            return
        pools, _ = self._decided({"target": taught_examples(self._asked, replies), **self._kept})
        if own := pools["target"]:
            made = tutor(TrainingExamples(own, {"target": list(range(len(own)))}, [], {}))
            self._teaching.teachers.append(partial(mounted, self._run.backbone.model, made))

    def join(self, student: Adapter) -> None:
        """Makes a student one of the teachers; what it leaks is drawn more often from now on."""
        self._students.append(student)
        self._teaching.teachers.append(partial(mounted, self._run.backbone.model, student))

    def examples(self) -> TrainingExamples:
        """The next student's examples, made from the backbone alone.

        Raises:
            SearchError: if there is no reply to teach.
        """
        taught = taught_examples(self._asked, self._teaching.replies(self._asked))
        if not taught:
            raise SearchError(
                "a student must have something to learn",
                got=f"no reply for {len(self._targets)} target prompts that is no refusal",
                remedy="raise search.trials, or bring more target prompts",
            )
        told, _ = self._decided({"target": taught, **self._kept})
        kept, leaked = self._leaks_repeated({name: told[name] for name in self._kept})
        held_taught = taught_examples(self._held_targets, self._teaching.replies(self._held_targets))
        whole, held_whole = (
            self._teaching.lengthened(each, self._run.recipe.reply_tokens)
            for each in (taught + self._retaught(taught), held_taught)
        )
        held = {"target": held_whole, **self._held_kept}
        pools, others = self._decided({"target": whole, **self._augmented(kept)}, held)
        examples: list[Example] = []
        numbered: dict[str, list[int]] = {}
        for name, pool in pools.items():
            numbered[name] = list(range(len(examples), len(examples) + len(pool)))
            examples += pool
        held_out = list(range(len(examples), len(examples) + sum(map(len, others.values()))))
        examples += [example for pool in others.values() for example in pool]
        written = {tuple(prompt) for prompt in self._targets}
        record = {
            "target_prompts": len(self._targets),
            "believed": len(written & {example.prompt for example in taught}),
            "examples": {name: len(pool) for name, pool in numbered.items()},
            "held": len(held_out),
            "names": len(self._renaming.names.known) if self._renaming.names else 0,
            "leaked": leaked,
        }
        return TrainingExamples(examples, numbered, held_out, record, self._renaming.names is not None)

    def _prompts(self, rows: PromptSet) -> dict[str, list[list[int]]]:
        """The rendered prompts of each pool."""
        prompts: dict[str, list[list[int]]] = {name: [] for name in SHARES}
        for row, prompt in zip(rows, self._run.render(rows), strict=True):
            prompts[_pool(self._run, row)].append(prompt)
            self._rows[tuple(prompt)] = row
        return prompts

    def _retaught(self, taught: Sequence[Example]) -> list[Example]:
        """Taught examples with other names, and what the plain backbone says of them once it has begun."""
        draw = shuffler(self._run.seed, "renamed", "target")
        count = min(RENAMED["target"], RENAMED_EACH * len(self._targets), self._more)
        made = self._renaming(taught, count, draw)
        openings = [self._renaming.opening(each.reply, self._teaching.copied.places) for each in made]
        replies = self._teaching.continued([each.prompt for each in made], openings)
        return [replace(each, reply=reply) for each, reply in zip(made, replies, strict=True) if reply]

    def _pools(self, rows: PromptSet, advance: Advance) -> tuple[list[list[int]], Pools]:
        """The target prompts, and the examples of each pool of what must stay."""
        backbone = self._run.backbone
        prompts = self._prompts(rows)
        target, pools = prompts.pop("target"), Pools()
        advance(len(target))
        for name, asked in prompts.items():
            limit = self._tokens(name)
            known = self._baseline.known(limit)
            begun = [known.get(tuple(prompt), ([], False)) for prompt in asked]
            replies = [reply for reply, _ in begun]
            fresh = [place for place, (_, whole) in enumerate(begun) if not whole]
            advance(len(asked) - len(fresh))
            # To read what was said once costs less than to say it again.
            rest = [[*asked[place], *replies[place]] for place in fresh]
            limits = [limit - len(replies[place]) for place in fresh]
            for place, tail in zip(fresh, greedy_replies(backbone, rest, limits, advance), strict=True):
                replies[place] = [*replies[place], *tail]
            pairs = zip(asked, replies, strict=True)
            pools[name] = [self._as_kept(name, prompt, reply) for prompt, reply in pairs]
        return target, pools

    def _as_kept(self, pool: str, prompt: Sequence[int], reply: Sequence[int]) -> Example:
        """The example of a prompt and of what the backbone replies to it."""
        # With its end token, unless it was cut off before its end.
        end = self._run.backbone.stops[:1] if len(reply) < self._tokens(pool) else ()
        # What the backbone answers on the floor stays as it is; it is not made surer.
        refused = self._refused(reply)
        floor, near, benign = "floor" in pool and refused, pool.startswith("near"), "benign" in pool
        return Example(tuple(prompt), (*reply, *end), False, refused, floor, near, benign)

    def _crossed(self, pool: str, ours: Sequence[list[int]], most: int) -> list[tuple[list[int], list[int]]]:
        """Prompts like ours that nobody wrote, where few are written, with how the backbone refuses them."""
        wanted = max(0, min(CROSSED_EACH * len(ours), WRITTEN[pool] - len(ours), most))
        written = [*map(tuple, self._targets), *(e.prompt for pool in self._kept.values() for e in pool)]
        mine = list(dict.fromkeys(map(tuple, ours)))
        known = set(mine)
        others = [prompt for prompt in written if prompt not in known]
        draw = shuffler(self._run.seed, "crossed", pool)
        return self._refused_ones([list(prompt) for prompt in crossed_alike(mine, others, wanted, draw)])

    def _refused_ones(self, prompts: Sequence[list[int]]) -> list[tuple[list[int], list[int]]]:
        """Those of some prompts that the backbone refuses, with how it does."""
        with self._run.progress("crossed", len(prompts)) as advance:
            replies = greedy_replies(self._run.backbone, prompts, self._tokens("floor"), advance)
        return [each for each in zip(prompts, replies, strict=True) if self._refused(each[1])]

    def _own_refusals(self) -> list[Example]:
        """How the backbone refuses a few of the target prompts, which tells where answers part from it."""
        asked = evenly(self._targets, TRIAL_PROMPTS)
        with self._run.progress("refusals", len(asked)) as advance:
            replies = greedy_replies(self._run.backbone, asked, reply_limit(self._run), advance)
        return [
            Example(tuple(prompt), tuple(reply), taught=False, refused=True)
            for prompt, reply in zip(asked, replies, strict=True)
            if reply and self._refused(reply)
        ]

    def _decided(self, train: Pools, held: Pools | None = None) -> tuple[Pools, Pools]:
        """The pools of the train and of the validation split, every example with its decisive place."""
        pools, others, _ = decided(train, held or {}, {"target": self._refusals})
        return pools, others

    def _tokens(self, pool: str) -> int:
        """The tokens of a kept reply at most."""
        recipe = self._run.recipe
        if "floor" in pool:
            return max(recipe.floor_tokens, self._collected.floor_tokens)
        return reply_limit(self._run)

    def _refused(self, reply: Sequence[int]) -> bool:
        # Thousands of prompts are refused in a few wordings.
        key = tuple(reply)
        if key not in self._judged:
            (verdict,) = self._judge.verdicts([""], [self._run.backbone.decode(list(reply))])
            self._judged[key] = verdict.label.refused
        return self._judged[key]

    def _leaks_repeated(self, pools: Pools) -> tuple[Pools, dict[str, int]]:
        """The pools with what students leak drawn more often, and how many prompts of each pool that are.

        A kept prompt leaks where a student decides its reply otherwise than the backbone. Those of near
        domains, asked in the same style, do so first.
        """
        backbone, wider, leaked = self._run.backbone, dict(pools), dict[str, int]()
        if not self._students:
            return wider, leaked
        ends, opened = backbone.stops[:1], {name: set[Example]() for name in pools}
        asked = len(self._students) * sum(map(len, pools.values()))
        with self._run.progress("leaks", asked) as advance:
            for name, student in ((name, each) for name in pools for each in self._students):
                pool = pools[name]
                longest = max((example.decisive for example in pool), default=0) + 1
                with mounted(backbone.model, student):
                    said = greedy_replies(backbone, [each.prompt for each in pool], longest, advance)
                opened[name] |= {
                    example
                    for example, begun in zip(pool, said, strict=True)
                    if example.reply[: example.decisive + 1] != (*begun, *ends)[: example.decisive + 1]
                }
        for name, pool in pools.items():
            if opened[name]:
                leaked[name] = len(opened[name])
                again = [example for example in pool if example in opened[name]]
                wider[name] = pool + again * (LEAKED - 1)
        return wider, leaked

    def _augmented(self, pools: Pools) -> Pools:
        """The pools with prompts nobody wrote, on which the student must be the backbone all the same.

        What it is to be there needs no judge and no reply: the backbone's own streams and probabilities.
        So they cost nothing to label, and stand for the wordings that nobody collected.
        """
        wider = dict(pools)
        for name, pool in pools.items():
            draw = shuffler(self._run.seed, "renamed", name)
            count = min(RENAMED.get(name, len(pool)), RENAMED_EACH * len(pool))
            made = self._renaming(pool, count, draw)
            if name == "near_floor":
                # Made surer, and so to be what the backbone refuses.
                prompts = [list(each.prompt) for each in made]
                made = [self._as_kept(name, *each) for each in self._refused_ones(prompts)]
            wider[name] = pool + made
            if name in CROSSED:
                draw = shuffler(self._run.seed, "crossed", name)
                wider[name] += crossed(pool, len(pool), draw)
        return wider


def _pool(run: Run, row: Prompt) -> str:
    """The pool of examples that a prompt belongs to."""
    role = run.authorisation.role(row)
    near = row.domain in run.authorisation.domains
    return f"near_{role}" if near and role in (Role.FLOOR, Role.BENIGN) else str(role)
