"""Which of many are drawn: evenly, or by random numbers from names, each draw with a seed of its own.

No global generator is touched.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of some items, evenly spread from the first on."""
    return items[:: max(1, -(-len(items) // most))]


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on ``seed`` and on every name, and on nothing else."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") >> 1


def shuffler(seed: int, *names: object) -> random.Random:
    """A ``random.Random`` of its own, for shuffling and sampling lists."""
    return random.Random(derive_seed(seed, *names))


@contextmanager
def torch_seed(seed: int, *names: object) -> Iterator[None]:
    """Seeds torch's default CPU generator inside the block and restores it afterwards.

    For libraries that draw their initial weights from the default generator.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *names))
        yield
