"""The other workers of a study, as processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from palette.errors import SearchError


@contextmanager
def workers(work: Callable[..., object], calls: Sequence[tuple[object, ...]]) -> Iterator[None]:
    """Processes that each make one call of ``work``, waited for at the block's end, or ended by its error.

    Raises:
        SearchError: if one of them ends badly.
    """
    # Forking a process that has used torch may hang; a spawned one starts afresh.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=call, daemon=True) for call in calls]
    for process in processes:
        process.start()
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
            process.join()
        raise
    for process in processes:
        process.join()
        if process.exitcode:
            raise SearchError(
                "every worker of a search must end well",
                got=f"exit status {process.exitcode} of {process.name}",
                remedy="read its message above; the study is kept",
            )
