"""In which order prompts are answered, what they share, and how many of them fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import psutil
import torch

from palette.backbones.backbone import Backbone
from palette.threads import LANES, lanes

CHUNK, CPU_CHUNK = 8192, 1024
"""Tokens that are read at once. On a CPU what they become must stay within the caches of a core."""
ROWS, CPU_ROWS = 1024, 256
"""Replies that grow together at most; more do not make a step faster."""
SHARE, CPU_BYTES = 0.5, 5 << 28
"""The share of the memory available now that what grows at once may take, and on a CPU no more than that."""
TURNS, LEAST = 2, 24
"""A work batch is as many replies as grow together, times this: long enough to be refilled. Where there are
fewer, they are divided among what runs at once, down to so many in each."""


@dataclass(frozen=True)
class PrefillBatch:
    """Rows of the caller's list that are read at once, and how many tokens they begin with alike."""

    shared: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class WorkBatch:
    """Prefill batches that are answered together, whatever was answered before; rows at once at most."""

    prefills: tuple[PrefillBatch, ...]
    capacity: int

    @property
    def rows(self) -> list[int]:
        """The rows of all of them."""
        return [row for prefill in self.prefills for row in prefill.rows]


def planned(
    backbone: Backbone, prompts: Sequence[Sequence[int]], limit: int, token_bytes: int
) -> list[WorkBatch]:
    """The prompts in work batches, longest first.

    The same prompts on the same device give the same batches, so that work that was cut short is done
    again beside the same rows, to the same rounding. Only where memory is short do they depend on how
    much there is.
    """
    device = backbone.model.device
    chunk, most = (CPU_CHUNK, CPU_ROWS) if device.type == "cpu" else (CHUNK, ROWS)
    free = available(device) * SHARE
    free = (min(free, CPU_BYTES) if device.type == "cpu" else free) / lanes(device)
    prefills = sorted(
        (part for group in sharing(prompts, chunk // 8) for part in _cut(prompts, group, chunk)),
        key=lambda part: (-len(prompts[part.rows[0]]), part.rows),
    )
    works: list[WorkBatch] = []
    gathered: list[PrefillBatch] = []
    capacity, even = 1, max(LEAST, -(-len(prompts) // lanes(device)))
    for prefill in prefills:
        if not gathered:
            width = len(prompts[prefill.rows[0]])
            capacity = fitting(free, row_bytes(backbone, width, limit, token_bytes), most)
        gathered += split(prefill, capacity)
        if sum(len(part.rows) for part in gathered) >= min(TURNS * capacity, even):
            works.append(WorkBatch(tuple(gathered), capacity))
            gathered = []
    return [*works, WorkBatch(tuple(gathered), capacity)] if gathered else works


def sharing(prompts: Sequence[Sequence[int]], worth: int) -> list[PrefillBatch]:
    """The prompts in groups that begin alike, where that saves ``worth`` tokens of reading or more.

    At least one token of each prompt is not shared, since the reply begins after it.
    """
    whole = sorted(range(len(prompts)), key=lambda row: (tuple(prompts[row]), row))
    groups: list[PrefillBatch] = []
    waiting = [(0, whole)] if whole else []
    while waiting:
        above, rows = waiting.pop()
        branch = _shareable(prompts, rows)
        shared = branch if _saved(rows, above, branch) >= worth else above
        rest: list[int] = []
        for _, same in groupby(rows, key=lambda row: prompts[row][branch]):
            alike = list(same)
            deeper = _shareable(prompts, alike)
            if len(alike) < len(rows) and _saved(alike, shared, deeper) >= worth:
                waiting.append((shared, alike))
            else:
                rest += alike
        if rest:
            groups.append(PrefillBatch(shared, tuple(rest)))
    return groups


def _shareable(prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> int:
    """How many tokens the rows, in the order of their tokens, begin with alike; at least one is left."""
    pairs = enumerate(zip(prompts[rows[0]], prompts[rows[-1]], strict=False))
    shortest = min(len(prompts[row]) for row in rows)
    return min(next((place for place, (a, b) in pairs if a != b), shortest), shortest - 1)


def _saved(rows: Sequence[int], above: int, shared: int) -> int:
    """Tokens that need not be read if rows share more than they do, less those of reading it once."""
    return (len(rows) - 1) * (shared - above) - above


def _cut(prompts: Sequence[Sequence[int]], group: PrefillBatch, chunk: int) -> Iterator[PrefillBatch]:
    """A group in prefill batches of at most so many tokens, padding among them, longest first.

    One of some size also ends where a quarter of the next row would be padding.
    """
    rows = sorted(group.rows, key=lambda row: (-len(prompts[row]), row))
    start = 0
    while start < len(rows):
        width = len(prompts[rows[start]]) - group.shared
        most, least = max(1, chunk // width), chunk // 4 // width
        end = start
        for row in rows[start : start + most]:
            length = len(prompts[row]) - group.shared
            if end - start > least and length < 0.75 * width:
                break
            end += 1
        yield PrefillBatch(group.shared, tuple(rows[start:end]))
        start = end


def split(prefill: PrefillBatch, capacity: int) -> list[PrefillBatch]:
    """The same rows in prefill batches of so many at most."""
    starts = range(0, len(prefill.rows), capacity)
    return [PrefillBatch(prefill.shared, prefill.rows[i : i + capacity]) for i in starts]


def row_bytes(backbone: Backbone, width: int, limit: int, token_bytes: int) -> int:
    """The bytes that one reply to a prompt of ``width`` tokens takes at most while it grows.

    Its keys and values, of which a copy is made layer by layer; its logits, also in float32; what a block
    makes of its prompt; and attention weights where they are stored.
    """
    config = backbone.model.config.get_text_config()
    number = backbone.model.dtype.itemsize
    eager = getattr(config, "_attn_implementation", "eager") == "eager"
    heads = getattr(config, "num_attention_heads", None) or 0
    weights = 2 * heads * width * width * (number + 4) if eager else 0
    logits = backbone.vocabulary * (number + 8)
    return int(token_bytes * (width + limit) + logits + _inner_bytes(backbone) * width + weights)


def _inner_bytes(backbone: Backbone) -> int:
    """What a block makes of a token."""
    inner = getattr(backbone.model.config.get_text_config(), "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 0
    return 4 * max(4 * backbone.width, inner) * backbone.model.dtype.itemsize


def growing_bytes(
    backbone: Backbone, prompts: int, width: int, limit: int, said: int, token_bytes: int
) -> int:
    """The bytes that replies to prompts of ``width`` tokens take on a CPU, as many as ``planned`` lets grow.

    ``limit`` is how long they may become, and ``said`` how long they are. The model need not be there yet.
    """
    capacity = fitting(CPU_BYTES / LANES, row_bytes(backbone, width, limit, token_bytes), CPU_ROWS)
    rows = min(capacity, -(-prompts // LANES))
    logits = backbone.vocabulary * (backbone.model.dtype.itemsize + 8)
    read = min(CPU_CHUNK, rows * width) * (token_bytes + _inner_bytes(backbone))
    return LANES * (rows * (token_bytes * (width + said) + logits) + read)


def fitting(free: float, row_size: int, most: int) -> int:
    """How many rows of so many bytes fit, as a power of two, so that little changes do not show."""
    return min(most, 1 << max(0, int(free // max(1, row_size)).bit_length() - 1))


def available(device: torch.device) -> int:
    """The bytes of memory that can be had on a device now, within the limit of a container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = int(psutil.virtual_memory().available)
    limits = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        most, used = (path.read_text().strip() for path in limits)
        return min(free, int(most) - int(used))
    except (OSError, ValueError):
        # No container, or one without a limit, which says "max".
        return free
