"""Pieces of work that run beside one another in threads of one process."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LANES = 2
"""Pieces that run at once on a CPU, each on the recipe's ``threads``. More would wait for the interpreter's
lock; the number is the same on every machine, since what is summed in which order depends on it. Several
threads inside one pass wait for each other at every operation, and for longest where other jobs run."""
_NAME = "lane"


def lanes(device: torch.device) -> int:
    """How many pieces of work on a device are worth running at once."""
    return LANES if device.type == "cpu" else 1


def beside(pieces: Iterable[Callable[[], T]], count: int) -> Iterator[T]:
    """What pieces of work give, in their order; ``count`` run at once at most, fewer where cores are.

    Twice as many are held at most, running or done. What is switched for the caller's thread alone, as
    whether gradients are recorded, a piece switches itself. When the iterator is closed, none runs any more.
    """
    import torch

    threads, inside = torch.get_num_threads(), threading.current_thread().name.startswith(_NAME)
    count = min(count, _cores() // threads)
    if inside or count < 2:
        yield from (piece() for piece in pieces)
        return
    pool, held = _pool(count, threads), deque[Future[T]]()
    try:
        for piece in pieces:
            held.append(pool.submit(piece))
            if len(held) == 2 * count:
                yield held.popleft().result()
        while held:
            yield held.popleft().result()
    finally:
        for future in held:
            future.cancel()
        wait(held)
        _FREED.give_back()


class Freed:
    """What was freed and is still this process's: each thread's share is kept apart, and only grows."""

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """It is given back to the system every so many seconds at most."""
        self._every, self._clock, self._last = every, clock, clock()

    def give_back(self) -> bool:
        """Gives it back where the C library can and the time has come; whether it did."""
        if self._clock() - self._last < self._every:
            return False
        self._last = self._clock()
        # Only glibc has it, and only glibc needs it.
        with suppress(AttributeError, OSError, TypeError):
            return bool(ctypes.CDLL(None).malloc_trim(0))
        return False


_FREED = Freed(10.0)


@cache
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay: a new one would have to be given its memory anew by the system."""
    import torch

    return ThreadPoolExecutor(count, _NAME, torch.set_num_threads, (threads,))


def _cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
