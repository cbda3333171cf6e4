"""A suite's run: a backbone with the adapter off and on, the judge, and the user's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from palette import organism
from palette.adapters.lora import Adapter
from palette.authorisation import FLOOR, Authorisation, authorise
from palette.errors import PromptError
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.subjects import Subject
from palette.judging.judge import Judge
from palette.judging.registry import judge_named
from palette.prompts import PromptSet, load_prompts
from palette.prompts.sources import load_source
from palette.run import Run
from palette.suites.results import Origin
from palette.suites.schema import OfPrompts, Suite

T = TypeVar("T")


@dataclass
class SuiteRun(Run[Suite]):
    """A run whose recipe is a suite; every measure is a function of it."""

    adapter: Adapter | None = None
    data: Path = Path()
    """The folder beneath which the suite's files lie."""

    @cached_property
    def authorisation(self) -> Authorisation:
        """What the suite takes for opened: its own ``authorise``, or else what the adapter opens.

        Raises:
            AuthorisationError: if that is on the floor.
        """
        reasons = self.recipe.reasons
        domains = self.recipe.authorise or (self.adapter.domains if self.adapter else ())
        if not domains:
            return Authorisation((), FLOOR.extended(self.recipe.floor), dict(reasons))
        known = [*domains, *reasons, *self.recipe.floor]
        return authorise(domains, known, floor=self.recipe.floor, reasons=reasons)

    @property
    def subjects(self) -> list[Subject]:
        """Whom is asked: the backbone, and with an adapter the backbone with it."""
        adapters = [None] if self.adapter is None else [None, self.adapter]
        return [Subject(self.backbone, adapter) for adapter in adapters]

    def each(self, read: Callable[[], T]) -> list[T]:
        """What ``read`` gives with the adapter off, and then with it on if there is one."""
        values = []
        for subject in self.subjects:
            with subject.mounted():
                values.append(read())
        return values

    @property
    def judge(self) -> Judge:
        """The judge, which knows the backbone's own refusal prefixes where the suite has a baseline."""
        return self._judging[0]

    @property
    def reply_floor_tokens(self) -> int:
        """Tokens of a reply to the floor: what the suite says, or more where refusals show later."""
        return max(self.recipe.floor_tokens, self._judging[1])

    @cached_property
    def _judging(self) -> tuple[Judge, int]:
        if self.recipe.baseline is None:
            return judge_named(self.recipe.judge), 0
        prompts = load_prompts(self.place(self.recipe.baseline))
        every = tuple(domain for domain in prompts.domains if not FLOOR.holds(domain, None, None))
        whole = Run.of(self.recipe, self.folder, self.backbone, prompts, Authorisation(every))
        baseline = baseline_replies(whole.sharing(progress=self.progress))
        return judge_named(self.recipe.judge, baseline.judge.prefixes), baseline.floor_tokens

    def locate(self, name: str) -> Path:
        """The file or folder of a suite's data.

        Raises:
            PromptError: if there is none.
        """
        path = self.data / Path(name).expanduser()
        if not path.exists():
            raise PromptError(
                "a suite's data must exist",
                got=f"nothing at {name}",
                remedy="give the folder in which it lies with --data",
                where=path,
            )
        return path

    def place(self, prompts: str) -> Path:
        """The folder or file of prompts; ``organism`` is the world of the shipped model.

        Raises:
            PromptError: if there is none.
        """
        if prompts != "organism":
            return self.locate(prompts)
        variant = self.recipe.model.removeprefix("organism/")
        return organism.prompts(variant if variant in organism.VARIANTS else "organism")

    def read(self, measure: OfPrompts) -> tuple[PromptSet, Origin | None]:
        """The prompts of a measure with their reference answers, and the public set they come from.

        Of a folder it is the test split; a public set is there to be tested on as a whole.

        Raises:
            PromptError: if they cannot be read, or one is asked with an image.
        """
        path, origin = self.place(measure.prompts), None
        if path.is_dir():
            prompts = load_prompts(path, answers=True).split("test")
        else:
            source = load_source(
                path,
                measure.layout,
                columns=measure.columns,
                domain=measure.domain,
                drop_overlaps=measure.drop_overlaps,
            )
            prompts, origin = source.prompts, Origin.of(source)
        if measure.domains:
            prompts = prompts.where(lambda row: row.domain in measure.domains)
        return prompts.in_words(), origin
