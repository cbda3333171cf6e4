"""Where a suite is measured: the backbone with the adapter off and on, the judge, and the user's files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from palette import organism
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Authorisation
from palette.backbones import Backbone
from palette.errors import PromptError
from palette.judging.judge import Judge
from palette.progress import Advance
from palette.prompts import PromptSet, load_prompts
from palette.prompts.sources import load_source
from palette.suites.results import Origin
from palette.suites.schema import OfPrompts

Found = TypeVar("Found")
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar with a title and a total, and gives the function that advances it."""


@dataclass(frozen=True)
class Bench:
    """A backbone with or without an adapter, and what a suite's measures need beside it."""

    backbone: Backbone
    adapter: Adapter | None
    judge: Judge
    progress: Progress
    authorisation: Authorisation
    data: Path
    """The folder beneath which the suite's files lie."""
    folder: Path
    """Where lm-eval's task files are written, so that its own command can be run on them."""
    model_folder: Path | None = None
    """The backbone's files, for that command."""
    floor_tokens: int = 0
    """Tokens after which the backbone's refusals show, where somebody has listened."""

    @property
    def sides(self) -> int:
        """How many sides are measured: the backbone, and with an adapter the adapter."""
        return 1 if self.adapter is None else 2

    def both(self, read: Callable[[], Found]) -> list[Found]:
        """What ``read`` finds with the adapter off, and then with it on if there is one."""
        found = []
        for adapter in (None, self.adapter)[: self.sides]:
            with nullcontext() if adapter is None else mounted(self.backbone.model, adapter):
                found.append(read())
        return found

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
        variant = self.backbone.name.removeprefix("organism/")
        return organism.prompts(variant if variant in organism.VARIANTS else "organism")

    def read(self, one: OfPrompts) -> tuple[PromptSet, Origin | None]:
        """The prompts of a measure with their reference answers, and the public set they come from.

        Of a folder it is the test split; a public set is there to be tested on as a whole.

        Raises:
            PromptError: if they cannot be read, or one is asked with an image.
        """
        path = self.place(one.prompts)
        origin = None
        if path.is_dir():
            found = load_prompts(path, answers=True).split("test")
        else:
            source = load_source(
                path, one.layout, columns=one.columns, domain=one.domain, drop_overlaps=one.drop_overlaps
            )
            found, origin = source.prompts, Origin.of(source)
        if one.domains:
            found = found.where(lambda row: row.domain in one.domains)
        return found.in_words(), origin
