"""For a model of the organism's size: two threads in one pass, or two passes at once on one thread each?

Ratios to one pass on one thread, in one run; and whether it is one where another process has a core.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.autograd import grad

from benchmarks.machine import write
from palette import organism
from palette.backbones import Backbone, load_backbone
from palette.backbones.generation import greedy_replies
from palette.prompts import load_prompts, messages
from palette.shapes import Tensor
from palette.threads import beside

Key = tuple[str, str]

REPEATS = 3


def main() -> None:
    """Measures a training step in three ways, and generation in two, in turn."""
    backbone = load_backbone(organism.weights())
    rows = load_prompts(organism.prompts()).split("validation").capped(8)
    prompts = [backbone.render(messages(row)) for row in rows]
    ids = torch.randint(10, 500, (80, 26), generator=torch.Generator().manual_seed(0))
    backbone.model.requires_grad_(True)
    weights = list(backbone.model.parameters())
    twins = (backbone, backbone.twin())

    def step(on: Backbone, part: Tensor) -> None:
        grad(on.model(input_ids=part, labels=part).loss, weights, materialize_grads=True)

    def halves() -> None:
        list(beside([partial(step, on, ids[lane::2]) for lane, on in enumerate(twins)], 2))

    jobs: dict[tuple[str, str], tuple[int, Callable[[], Any]]] = {
        ("training_step", "one_thread"): (1, partial(step, backbone, ids)),
        ("training_step", "two_threads"): (2, partial(step, backbone, ids)),
        ("training_step", "two_halves_at_once"): (1, halves),
        ("generation", "one_thread"): (1, partial(greedy_replies, backbone, prompts, 24)),
        ("generation", "two_threads"): (2, partial(greedy_replies, backbone, prompts, 24)),
    }
    figures: dict[str, dict[str, Any]] = {}
    for state in ("quiet", "beside_another_job"):
        with busy() if state != "quiet" else nullcontext():
            seconds = measured(jobs)
        for (name, way), median in seconds.items():
            found = figures.setdefault(name, {}).setdefault(state, {})
            found[way] = round(median / seconds[name, "one_thread"], 3)
    write("threads", figures)


def measured(jobs: Mapping[Key, tuple[int, Callable[[], Any]]]) -> dict[Key, float]:
    """The median seconds of each job, which are done in turn, on so many threads."""
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    for repeat in range(REPEATS + 1):
        for key, (threads, job) in jobs.items():
            torch.set_num_threads(threads)
            started = time.perf_counter()
            job()
            if repeat:
                seconds[key].append(time.perf_counter() - started)
    return {key: statistics.median(each) for key, each in seconds.items()}


@contextmanager
def busy() -> Iterator[None]:
    """Another process that has a core for itself as long as the block runs."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()
