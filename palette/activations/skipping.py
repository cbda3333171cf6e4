"""Blocks that are not run because what they would give is known: the layer-prefix cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from palette.activations.hooks import Stream


@contextmanager
def skipped(blocks: Sequence[nn.Module], first: int, stream: Stream | None) -> Iterator[None]:
    """Blocks below ``first`` give ``stream`` at once; hooks on them still run, with what they give.

    ``stream`` is the residual stream at site ``first`` of the very batch that is run. The library's
    own forward stays in charge of everything else, so that any architecture may be skipped through.
    """
    known = list(blocks[:first]) if stream is not None else []
    try:
        for block in known:
            block.forward = _gives(stream)
        yield
    finally:
        for block in known:
            block.__dict__.pop("forward", None)


def _gives(stream: Any) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return stream

    return forward
