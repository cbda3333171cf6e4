"""How many tokens a second are replied beside the library's own batch generation with a static cache?

Both answer the same questions of a real chat model greedily, up to the same number of tokens, on the same
cores: the library on as many threads as there are, in batches of like length of the size that is fastest
for it; Palette by continuous batching. Only tokens up to a reply's end are counted. They take turns.

    make smollm && python -m benchmarks.generation
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import write
from palette.backbones import Backbone, batches, greedy_replies, load_backbone
from palette.prompts import load_prompts, messages

HOME = Path("recipes/smollm")
DOMAIN = "medicine"
PROMPTS, TOKENS = 96, 96
SIZES = (16, 32, 96)
ROUNDS = 2

Replies = list[list[int]]


def library(backbone: Backbone, prompts: Sequence[list[int]], size: int, cache: str | None) -> Replies:
    """The replies by the library's ``generate``, in batches of so many prompts, the longest first."""
    replies: Replies = [[]] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        (batch,) = batches([prompts[row] for row in rows], backbone.pad, backbone.model.device, 1 << 30)
        said = backbone.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            max_new_tokens=TOKENS,
            do_sample=False,
            cache_implementation=cache,
            eos_token_id=list(backbone.stops),
            pad_token_id=backbone.pad,
        )[:, batch.ids.shape[1] :].tolist()
        for place, reply in zip(batch.rows, said, strict=True):
            ends = [at for at, token in enumerate(reply) if token in backbone.stops]
            replies[rows[place]] = reply[: ends[0]] if ends else reply
    return replies


def measured(run: Callable[[], Replies], threads: int) -> tuple[float, Replies]:
    """Tokens a second, and the replies."""
    torch.set_num_threads(threads)
    started = time.monotonic()
    with torch.no_grad():
        replies = run()
    return sum(map(len, replies)) / (time.monotonic() - started), replies


def compared(dtype: str) -> dict[str, Any]:
    """The best of a few rounds of each in a precision, their ratio, and how many replies are the same."""
    backbone = load_backbone(HOME / "model", dtype=dtype)
    rows = [row for row in load_prompts(HOME / "prompts") if row.domain == DOMAIN and row.kind == "benign"]
    prompts = [backbone.render(messages(row)) for row in rows[:PROMPTS]]
    cores = len(os.sched_getaffinity(0))
    ways: dict[str, tuple[Callable[[], Replies], int]] = {
        "palette": (lambda: greedy_replies(backbone, prompts, TOKENS), 1)
    }
    for cache in ("static", None):
        for size in SIZES:
            name = f"{cache or 'dynamic'} cache, {size} a batch"
            ways[name] = (lambda size=size, cache=cache: library(backbone, prompts, size, cache), cores)
    best, said = dict.fromkeys(ways, 0.0), dict[str, Replies]()
    for _ in range(ROUNDS):
        for name, (run, threads) in ways.items():
            rate, said[name] = measured(run, threads)
            best[name] = max(best[name], rate)
            print(dtype, name, f"{rate:.0f} tokens/s", file=sys.stderr, flush=True)
    theirs = max((name for name in ways if name.startswith("static")), key=best.__getitem__)
    alike = sum(one == other for one, other in zip(said["palette"], said[theirs], strict=True))
    return {
        "tokens_a_second": {name: round(rate, 1) for name, rate in best.items()},
        "ratio": round(best["palette"] / best[theirs], 2),
        "same_replies": alike / len(prompts),
    }


def main() -> None:
    """Measures both precisions and writes ``results/generation.json``."""
    if not (HOME / "model").is_dir():
        raise SystemExit("the real chat model must be there, got none; run make smollm")
    figures: dict[str, Any] = {"prompts": PROMPTS, "tokens": TOKENS}
    for dtype in ("float32", "bfloat16"):
        figures[dtype] = compared(dtype)
        print(dtype, json.dumps(figures[dtype]), file=sys.stderr, flush=True)
    write("generation", figures)


if __name__ == "__main__":
    main()
