"""What do replies cost that grow together, against the library's own ``generate``; and judging them again?

``python -m benchmarks.evaluate ADAPTER [EVERY]``: the organism's whole test split, backbone and adapter,
in one process on one thread, CPU seconds. ``EVERY`` thins the prompts of the slowest way alone, one prompt
at a time, whose figure is then multiplied; the results say so.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks.machine import write
from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import authorise
from palette.backbones import Backbone, load_backbone
from palette.evaluation.replies import Replies, ReplyFile
from palette.evaluation.subjects import Requests, Subject
from palette.evaluation.wrappers import wrapped
from palette.fingerprints import fingerprint
from palette.judging.judge import judge_named
from palette.prompts import load_prompts
from palette.run import Run
from palette.run_settings import RunSettings
from palette.stages.measuring import PROMPTS, WRAPPED_PROMPTS

BATCHES, REJUDGED, ROUNDS = (16, 32, 64), 10_000, 2
Prompts = Sequence[list[int]]


def requests(backbone: Backbone) -> tuple[list[list[int]], list[int]]:
    """The prompts of an evaluation, those in wrappers among them, and the limit of each reply."""
    rows = load_prompts(organism.prompts("organism"))
    opened = authorise(["medical"], rows.domains, floor=["weapons"])
    run = Run.of(RunSettings(), Path(), backbone, rows, opened)
    chosen = rows.split("test").capped(PROMPTS)
    plain, inside = Requests.of(run, chosen), wrapped(run, chosen, WRAPPED_PROMPTS)[0]
    limits = [each.limits(run.recipe.reply_tokens, run.recipe.floor_tokens) for each in (plain, inside)]
    return [*plain.prompts, *inside.prompts], [*limits[0], *limits[1]]


@torch.no_grad()
def by_library(backbone: Backbone, prompts: Prompts, limits: Sequence[int], size: int) -> list[list[int]]:
    """Replies by ``generate`` in batches of a fixed size, in the order of the prompts, a limit at a time."""
    found: list[list[int]] = [[]] * len(prompts)
    for limit in sorted(set(limits)):
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=backbone.pad,
            eos_token_id=list(backbone.stops),
        )
        rows = [row for row, own in enumerate(limits) if own == limit]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            width = max(len(prompts[row]) for row in part)
            ids = [[backbone.pad] * (width - len(prompts[row])) + prompts[row] for row in part]
            mask = [[0] * (width - len(prompts[row])) + [1] * len(prompts[row]) for row in part]
            out = backbone.model.generate(
                input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=config
            )
            for row, line in zip(part, out[:, width:].tolist(), strict=True):
                ends = [place for place, token in enumerate(line) if token in backbone.stops]
                found[row] = line[: ends[0]] if ends else line
    return found


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what came of it."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def generation(backbone: Backbone, adapter: Adapter, every: int) -> dict[str, Any]:
    """CPU seconds of several ways to the same replies, backbone and adapter."""
    prompts, limits = requests(backbone)
    thinned = list(range(0, len(prompts), every))
    sizes = {f"batches of {size}": size for size in BATCHES}
    seconds: dict[str, float] = {"ours": 0.0, **dict.fromkeys(sizes, 0.0), "one at a time": 0.0}
    same = 0
    for mounting in (None, adapter):
        ours = [
            spent(lambda m=mounting: Replies().of(Subject(backbone, m), prompts, limits))
            for _ in range(ROUNDS)
        ]
        with mounted(backbone.model, mounting) if mounting else nullcontext():
            batched = {
                name: [spent(lambda s=size: by_library(backbone, prompts, limits, s)) for _ in range(ROUNDS)]
                for name, size in sizes.items()
            }
            single = spent(
                lambda: by_library(backbone, [prompts[i] for i in thinned], [limits[i] for i in thinned], 1)
            )
        seconds["ours"] += min(each for each, _ in ours)
        for name, runs in batched.items():
            seconds[name] += min(each for each, _ in runs)
        seconds["one at a time"] += single[0] * len(prompts) / len(thinned)
        plain = batched[f"batches of {BATCHES[0]}"][0][1]
        same += sum(a == b for a, b in zip(ours[0][1], plain, strict=True))
        print(mounting is not None, seconds, file=sys.stderr, flush=True)
    return {
        "prompts": len(prompts),
        "cpu_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "one_at_a_time_every": every,
        "same_replies": same / (2 * len(prompts)),
        "ratios": {name: round(value / seconds["ours"], 2) for name, value in seconds.items()},
    }


def rejudged(backbone: Backbone, folder: Path) -> dict[str, float]:
    """Seconds to judge kept replies again, read from disk: 200 of the organism's, each with another number.

    For the panel hears the same words once only.
    """
    prompts, limits = requests(backbone)
    some = Replies().of(Subject(backbone), prompts[:200], limits[:200])
    identity = Subject(backbone).identity
    asks = [[1, *map(int, str(number))] for number in range(REJUDGED)]
    keys = [fingerprint([identity, ids, 128]) for ids in asks]
    numbers = [backbone.tokenizer(str(i), add_special_tokens=False)["input_ids"] for i in range(REJUDGED)]
    ReplyFile(folder / f"{identity}.jsonl").add(
        {k: [*some[i % 200], *numbers[i]] for i, k in enumerate(keys)}
    )
    started, cpu = time.monotonic(), time.process_time()
    replies = Replies(folder)
    texts = [backbone.decode(r) for r in replies.of(Subject(backbone), asks, [128] * len(asks))]
    verdicts = judge_named("panel").verdicts([""] * len(texts), texts)
    assert replies.tally.generated == 0
    return {
        "replies": len(verdicts),
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def command(adapter: Path, place: Path, *options: str) -> dict[str, Any]:
    """Wall and CPU seconds of ``palette evaluate`` as typed, its start among them."""
    call = [sys.executable, "-m", "palette", "evaluate", "--model", "organism", "--prompts", "organism"]
    call += [
        "--authorise",
        "medical",
        "--floor",
        "weapons",
        "--adapter",
        str(adapter),
        "-o",
        str(place / "run"),
    ]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "PALETTE_CACHE": str(place)}
    done = subprocess.run([*call, "--json", *options], env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr.decode())
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "replies": json.loads((place / "run" / "evaluate" / "timing.json").read_text()),
    }


def main() -> None:
    """Measures and writes ``results/evaluate.json``."""
    path, every = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    torch.set_num_threads(1)
    backbone = load_backbone(organism.weights(), "organism")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        figures = {
            "evaluate": command(path, folder),
            "evaluate_again_with_another_gate": command(
                path, folder, "--set", "evaluate.gate.target_refusal=0.04"
            ),
            "rejudging": rejudged(backbone, folder / "rejudged"),
            "generation": generation(backbone, read_adapter(path), every),
            "load": [round(value, 2) for value in os.getloadavg()],
        }
    write("evaluate", figures)


if __name__ == "__main__":
    main()
