"""What every stage of a run works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from palette.authorisation import Authorisation, Role
from palette.backbones import Advance, Backbone
from palette.internalise import ALONE, ProcessGroup
from palette.prompts import Prompt, PromptSet, Split, messages

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar with a title and a total, and gives what advances it."""


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    """A progress bar that shows nothing."""
    yield lambda count, tokens=0: None


@dataclass(frozen=True)
class Assignment:
    """A backbone, prompts without answers, and what is authorised; ``folder`` is the run's."""

    backbone: Backbone
    prompts: PromptSet
    authorisation: Authorisation
    folder: Path
    seed: int = 0
    progress: Progress = field(default=silent, compare=False)
    processes: ProcessGroup = ALONE
    """The processes that run the stage together."""
    replies: Path | None = None
    """Where replies are kept, outside the run's folder; without one they are not."""

    def select(self, split: Split, *roles: Role) -> PromptSet:
        """The prompts of a split that play one of the roles."""
        return self.prompts.split(split).where(lambda p: self.authorisation.role(p) in roles)

    def render(self, prompts: Sequence[Prompt] | PromptSet) -> list[list[int]]:
        """The rendered prompts as token ids."""
        return [self.backbone.render(messages(prompt)) for prompt in prompts]
