"""Hooks on the residual stream that are all on inside a ``with`` and all off afterwards.

Sites are numbered like the stream itself: site ``l`` is ``resid_pre`` of block ``l``, which is
``resid_post`` of block ``l − 1``; site 0 is the embedding output and site L the last block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from palette.shapes import Float, Tensor

Stream = Float[Tensor, "batch position d_model"]
Edit = Callable[[Stream], Stream]


@contextmanager
def edited(blocks: Sequence[nn.Module], edits: Mapping[int, Edit]) -> Iterator[None]:
    """Applies each edit to the residual stream at its site, for every forward pass in the block.

    Raises:
        ValueError: if a site is not between 0 and the number of blocks.
    """
    with ExitStack() as stack:
        for site, edit in sorted(edits.items()):
            stack.callback(_attach(blocks, site, edit).remove)
        yield


@contextmanager
def captured(
    blocks: Sequence[nn.Module], receive: Callable[[int, Stream], None], sites: Iterable[int] | None = None
) -> Iterator[None]:
    """Calls ``receive(site, stream)`` at the sites, by default at every one, for every forward pass."""

    def reader(site: int) -> Edit:
        def read(stream: Stream) -> Stream:
            receive(site, stream)
            return stream

        return read

    with edited(
        blocks, {site: reader(site) for site in (range(len(blocks) + 1) if sites is None else sites)}
    ):
        yield


@contextmanager
def block_outputs(blocks: Sequence[nn.Module], sites: Sequence[int]) -> Iterator[dict[int, Stream]]:
    """A mapping that holds, after each forward pass, the stream at the sites asked for."""
    streams: dict[int, Stream] = {}
    with captured(blocks, streams.__setitem__, sites):
        yield streams


def _attach(blocks: Sequence[nn.Module], site: int, edit: Edit) -> RemovableHandle:
    if not 0 <= site <= len(blocks):
        raise ValueError(f"a site must be between 0 and {len(blocks)}, got {site}")
    if site < len(blocks):
        return blocks[site].register_forward_pre_hook(_on_input(edit), with_kwargs=True)
    return blocks[site - 1].register_forward_hook(_on_output(edit))


def _on_input(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return hook


def _on_output(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Some decoder layers return the stream alone, some return a tuple that begins with it.
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return hook
