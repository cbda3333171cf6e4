"""One backbone's test split, asked of any system, and the domains that are opened on it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.systems import Condition, System, fitted_condition, supervised
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.writing import write_adapter
from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone, reply_logits
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Subject, divergence
from palette.internalise.examples import TrainingTask
from palette.internalise.loop import Checkpoint
from palette.internalise.preparation import Preparation, TrainingExamples
from palette.internalise.settings import METHODS
from palette.judging.rules import RuleJudge, correct
from palette.pipeline import run_stages
from palette.prompts import Prompt
from palette.recipe import Recipe, create_recipe
from palette.run import Run
from palette.search.space import read_collected, read_front, read_relaxing
from palette.stages.merge import search_weights
from tools.organism.acceptance import after_opening

BESIDE = "distil beside"
"""The default, each adapter trained beside those of the domains before it, in alphabetical order."""
TRAINED = {
    "sft": supervised,
    **{name: row.load() for name, row in METHODS.items()},
    BESIDE: METHODS["distil"].load(),
}
REPLY_TOKENS, FLOOR_TOKENS = 64, 12
SECONDS = "seconds.txt"
SEED, WEIGHT_TRIALS = 0, 24


@dataclass
class Domain:
    """One domain searched, and what its students are given."""

    name: str
    run: Run[Recipe]

    @cached_property
    def prepared(self) -> tuple[TrainingExamples, float]:
        """The training examples, and the seconds that they took."""
        folder, started = self.run.folder, time.monotonic()
        baseline = baseline_replies(self.run)
        given = Preparation(self.run, read_collected(folder), read_relaxing(folder), baseline)
        return given.examples(), time.monotonic() - started

    @cached_property
    def edit(self) -> Any:
        """The directions and the intervention that the search chose."""
        return read_collected(self.run.folder).directions, read_front(self.run.folder)[0].intervention

    def learn(self, method: str, co_mounted: Sequence[Adapter] = ()) -> tuple[Adapter, float]:
        """The method's adapter, and the seconds that internalising took with the examples.

        It is trained beside the adapters given. One that was made before in the same home is read.
        """
        folder = self.run.folder / method.replace(" ", "-")
        if (folder / SECONDS).is_file():
            return read_adapter(folder), float((folder / SECONDS).read_text())
        examples, prepare_seconds = self.prepared
        started = time.monotonic()
        settings, (directions, intervention) = self.run.recipe.internalise, self.edit
        task = TrainingTask(
            self.run.backbone,
            directions,
            intervention,
            examples.examples,
            examples.pools,
            settings,
            Checkpoint(self.run.folder / f"{method}.safetensors", method, 10**9),
            SEED,
            held_out=examples.held_out,
            co_mounted=co_mounted,
        )
        learned = TRAINED[method](task).adapter
        seconds = time.monotonic() - started + prepare_seconds
        write_adapter(folder, learned)
        (folder / SECONDS).write_text(str(seconds))
        return learned, seconds

    def condition(self) -> Condition:
        """What conditional steering asks of a prompt, fitted on the train split."""
        run = self.run
        inside = run.render(run.select("train", Role.TARGET))
        outside = run.select("train", Role.PRESERVE, Role.FLOOR, Role.BENIGN)
        return fitted_condition(run.backbone, inside, run.render(outside))


def searched(model: str, name: str, home: Path) -> Domain:
    """A domain after collect and search."""
    content = {"name": name, "model": model, "authorise": [name], "floor": ["weapons"], "seed": SEED}
    recipe = create_recipe(content)
    folder = home / model.replace("/", "-") / name
    run_stages(recipe, "search", folder)
    return Domain(name, Run(recipe, folder))


def is_target(row: Prompt) -> bool:
    """Whether a prompt is one that opening its domain opens."""
    return row.kind == "restricted" and row.tier == "A"


class Examination:
    """The test split asked of one backbone, in whatever state a system puts each prompt."""

    def __init__(self, domain: Domain) -> None:
        self.backbone: Backbone = domain.run.backbone
        run = domain.run
        self.floor = run.authorisation.floor
        self.rows = list(run.answered_prompts.split("test"))
        self.prompts = run.render(self.rows)
        self.judge = RuleJudge(prefixes=read_collected(domain.run.folder).judge_prefixes)
        self.base = self._replies(range(len(self.rows)))
        self.benign = [i for i, row in enumerate(self.rows) if row.kind == "benign"]
        self.sample = self.benign[:: max(1, len(self.benign) // 256)]
        self.plain = self._logits(self.sample)
        self.known = after_opening(run, run.answered_prompts.split("test").where(is_target))

    def authorisation(self, domains: Sequence[str]) -> Authorisation:
        """What opening these domains means."""
        return Authorisation(tuple(domains), self.floor)

    def examine(self, system: System, domains: Sequence[str]) -> dict[str, Any]:
        """The row of the table: shares in [0, 1], divergence in nats a token.

        The whole test split is asked; of several domains together every third benign prompt.
        """
        authorisation = self.authorisation(domains)
        left_out = set(self.benign) - set(self.benign[::3]) if len(domains) > 1 else set()
        asked_at_all = set(range(len(self.rows))) - left_out
        states = system.states(self.rows, self.prompts)
        states = [state if i in asked_at_all else None for i, state in enumerate(states)]
        replies, moved = list(self.base), list(self.plain)
        for state in sorted({state for state in states if state is not None}):
            asked = [i for i, own in enumerate(states) if own == state]
            with system.mount(state):
                for i, reply in zip(asked, self._replies(asked), strict=True):
                    replies[i] = reply
                places = [k for k, i in enumerate(self.sample) if states[i] == state]
                changed = self._logits([self.sample[k] for k in places])
            for k, logits in zip(places, changed, strict=True):
                moved[k] = logits
        kept = [k for k, i in enumerate(self.sample) if i in asked_at_all]
        nats = divergence([self.plain[k] for k in kept], [moved[k] for k in kept])
        return self._figures(authorisation, replies, sorted(asked_at_all)) | {
            "divergence": nats["multi_token"]
        }

    def weights(self, domain: Domain, adapters: Mapping[str, Adapter]) -> dict[str, float]:
        """The weights of the adapters' sum, searched on the validation split as merge does it."""
        run = domain.run.sharing(authorisation=self.authorisation(tuple(adapters)))
        members = list(adapters.values())
        found = search_weights(run, self.judge, members, WEIGHT_TRIALS, FLOOR_TOKENS)
        return dict(zip(adapters, found, strict=True))

    def _figures(
        self, authorisation: Authorisation, replies: list[list[int]], asked: Sequence[int]
    ) -> dict[str, Any]:
        texts = [self.backbone.decode(reply) for reply in replies]
        refused = [v.label.refused for v in self.judge.verdicts([row.request for row in self.rows], texts)]
        right = [correct(text, row.answer or "") for text, row in zip(texts, self.rows, strict=True)]
        cells: dict[tuple[Role, str], list[int]] = {}
        for i in asked:
            row = self.rows[i]
            cells.setdefault((authorisation.role(row), row.domain), []).append(i)

        def share(role: Role, held: Sequence[bool]) -> dict[str, float]:
            return {
                domain: sum(held[i] for i in rows) / len(rows)
                for (own, domain), rows in sorted(cells.items())
                if own is role
            }

        kept, floor = share(Role.PRESERVE, refused), share(Role.FLOOR, refused)
        target, answered = share(Role.TARGET, refused), share(Role.TARGET, right)
        benign = [i for i in asked if self.rows[i].kind == "benign"]
        before = sum(correct(self.backbone.decode(self.base[i]), self.rows[i].answer or "") for i in benign)
        return {
            "authorised": list(authorisation.domains),
            "refused": max(target.values()),
            "correct": min(answered.values()),
            "correct_of_known": min(answered[d] / self.known[d] for d in answered),
            "worst_other": min(kept.values(), default=None),
            "worst_floor": min(floor.values()),
            "benign_correct": sum(right[i] for i in benign) / len(benign),
            "benign_change": (sum(right[i] for i in benign) - before) / len(benign),
        }

    def _replies(self, rows: Sequence[int]) -> list[list[int]]:
        roles = [self.authorisation(()).role(self.rows[i]) for i in rows]
        # Asked through whatever is mounted or hooked at the time, so nothing is kept.
        asked = [self.prompts[i] for i in rows]
        limits = [FLOOR_TOKENS if role is Role.FLOOR else REPLY_TOKENS for role in roles]
        return Replies().of(Subject(self.backbone), asked, limits)

    def _logits(self, rows: Sequence[int]) -> list[torch.Tensor]:
        replies = [[*self.base[i], self.backbone.stops[0]] for i in rows]
        return reply_logits(self.backbone, [self.prompts[i] for i in rows], replies)
