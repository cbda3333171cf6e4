"""How a long piece of work says how far it is, whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    """Told how much more is done, and of how many tokens it was made."""

    def __call__(self, count: int, tokens: int = 0) -> None:
        """``count`` more pieces are done, ``tokens`` of which were generated."""


Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a piece of work with its title and total, and gives what advances it."""


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    """Progress that nobody sees."""
    yield lambda count, tokens=0: None
