"""Is one thread faster than two for models of the organism's size? A ratio in one run."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.machine import write
from palette import organism
from palette.backbones import load_backbone
from palette.backbones.generation import greedy_replies
from palette.prompts import load_prompts, messages

REPEATS = 2


def main() -> None:
    """Measures a training step and generation with one thread and with two, in turn."""
    backbone = load_backbone(organism.weights())
    rows = load_prompts(organism.prompts()).split("validation").capped(8)
    prompts = [backbone.render(messages(row)) for row in rows]
    ids = torch.randint(10, 500, (80, 26), generator=torch.Generator().manual_seed(0))
    backbone.model.requires_grad_(True)

    def step() -> None:
        backbone.model(input_ids=ids, labels=ids).loss.backward()
        backbone.model.zero_grad()

    jobs = {"training_step": step, "generation": lambda: greedy_replies(backbone, prompts, 24)}
    seconds: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in jobs}
    for repeat in range(REPEATS + 1):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for name, job in jobs.items():
                started = time.perf_counter()
                job()
                if repeat:
                    seconds[name][threads].append(time.perf_counter() - started)
    figures: dict[str, Any] = {}
    for name, by_threads in seconds.items():
        medians = {threads: statistics.median(found) for threads, found in by_threads.items()}
        figures[name] = {
            "one_thread_seconds": round(medians[1], 4),
            "two_threads_seconds": round(medians[2], 4),
            "ratio_one_over_two": round(medians[1] / medians[2], 3),
        }
    write("threads", figures)


if __name__ == "__main__":
    main()
