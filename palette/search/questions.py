"""Questions of a task of lm-eval, asked in every trial: what an intervention costs in right answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from palette.activations import Edits
from palette.backbones import Backbone
from palette.directions import editing
from palette.errors import SearchError
from palette.evaluation.lm_eval import sampled, task_manager, undisturbed
from palette.search.settings import TASK, is_task_file
from palette.seeding import shuffler

QUESTIONS, BATCH = 32, 16
"""Questions of a task at most, and in a batch."""


@dataclass(frozen=True)
class Questions:
    """Some questions of a task, by the name of the objective that they make."""

    name: str
    backbone: Backbone
    manager: Any
    tasks: Mapping[str, Any]
    """The tasks of lm-eval that the name stands for, loaded."""
    chosen: list[tuple[str, int]]
    """Of which task each question is, and its number there; sorted."""

    def divided(self, share: float) -> tuple[Questions, Questions]:
        """A share of the questions, spread over all of them, and the others."""
        stride = max(1, round(1 / share))
        first = self.chosen[::stride]
        return replace(self, chosen=first), replace(self, chosen=sorted({*self.chosen} - {*first}))

    def lost(self, edits: Edits) -> list[float]:
        """By question the score, in [0, 1], that the backbone has without the edits, less that with them."""
        return [own - score for own, score in zip(self._own, self._scores(edits), strict=True)]

    @cached_property
    def _own(self) -> list[float]:
        return self._scores({})

    def _scores(self, edits: Edits) -> list[float]:
        numbers: dict[str, list[int]] = {}
        for task, number in self.chosen:
            numbers.setdefault(task, []).append(number)
        if not numbers:
            return []
        with editing(self.backbone, edits):
            found = sampled(
                self.backbone,
                {"batch_size": BATCH},
                tasks=[self.tasks[task] for task in numbers],
                task_manager=self.manager,
                samples=numbers,
            )
        return [score for task in numbers for score in self._scored(task, found[task])]

    def _scored(self, task: str, answered: list[dict[str, Any]]) -> Iterator[float]:
        """The score of each answer by the task's first metric, behind its first filter."""
        for each in answered:
            if each["filter"] != answered[0]["filter"]:
                continue
            metric = each["metrics"][0]
            score, better = each[metric], self.tasks[task].higher_is_better().get(metric)
            if better is False or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise SearchError(
                    "a task that is an objective must score each question from 0 to 1, of which 1 is best",
                    got=f"{score} of {metric}",
                    remedy="put such a metric first in its metric_list, acc or exact_match say",
                    where=f"search.objectives: {self.name}",
                )
            yield float(score)


def drawn(backbone: Backbone, name: str, count: int, seed: int) -> Questions:
    """As many questions of the task that an objective names, or all where it has fewer.

    Raises:
        SearchError: if lm-eval cannot load it.
    """
    task = name.removeprefix(TASK)
    try:
        manager = task_manager(defaults=not is_task_file(task))
        with undisturbed():
            tasks = manager.load([task])["tasks"]
            every = [(own, number) for own, one in tasks.items() for number in range(len(one.eval_docs))]
    except Exception as error:  # Whatever a task's file, its reader and its data may raise.
        raise SearchError(
            "lm-eval must be able to load a task that is an objective",
            got=f"{type(error).__name__}: {error}",
            remedy="mend its file or its name, or fetch its data first",
            where=f"search.objectives: {name}",
        ) from error
    chosen = shuffler(seed, "questions", name).sample(every, min(count, len(every)))
    return Questions(name, backbone, manager, tasks, sorted(chosen))
