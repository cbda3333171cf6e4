"""The processes that share one command, one or several under ``torchrun``, and how they say how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from palette.errors import BackboneError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those that run the same command; alone by default.

    ``device`` is the torch device that it works on.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns nothing, once every process is here."""
        if self.size > 1:
            _state(self.device).wait_for_everyone()

    def sum(self, value: float) -> float:
        """The sum of every process's value."""
        if self.size == 1:
            return value
        import torch

        return float(_reduced(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def add_gradients(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Returns nothing; every process's gradients become the sum of all, the same to the bit."""
        if self.size == 1:
            return
        import torch

        for _, parameter in sorted(parameters.items()):
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _reduced(own)


ALONE = ProcessGroup()


def device_named(name: str) -> str:
    """The torch device of a recipe's ``device``; ``auto`` is an accelerator where there is one, else the CPU.

    Not Apple's, which has no double precision, unless it is named.

    Raises:
        BackboneError: if this machine has no such device.
    """
    if name == "cpu":
        return name
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    kind = found.type if found is not None else "cpu"
    if name == "auto":
        return "cpu" if kind == "mps" else kind
    numbered = [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
    here = list(dict.fromkeys(["cpu", kind, *numbered]))
    if name not in here:
        raise BackboneError(
            "device must be auto or one that this machine has",
            got=repr(name),
            remedy=f"it has {', '.join(here)}",
            where="device",
        )
    return name


def join_process_group(device: str) -> ProcessGroup:
    """The processes that a launcher has put this process into, by the environment that it set; else alone.

    Of several processes each gets an accelerator of its own, where ``device`` is one.

    Raises:
        BackboneError: if this machine has no such device.
    """
    device = device_named(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessGroup(device=device)
    state = _state(device)
    own = device if device == "cpu" else str(state.device)
    return ProcessGroup(state.process_index, state.num_processes, own)


def _state(device: str) -> Any:
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu")


def _reduced(value: torch.Tensor) -> torch.Tensor:
    from accelerate.utils import reduce

    total: torch.Tensor = reduce(value, "sum")
    return total


@runtime_checkable
class Advance(Protocol):
    """Told how much more is done, and of how many tokens it was made."""

    def __call__(self, count: int, tokens: int = 0) -> None:
        """``count`` more pieces are done, ``tokens`` of which were generated."""


def unheard(count: int, tokens: int = 0) -> None:
    """Takes what is done, and tells nobody."""


Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a piece of work with its title and total, and gives what advances it."""


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    """Progress that nobody sees."""
    yield unheard
