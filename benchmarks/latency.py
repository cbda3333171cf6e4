"""What does a way of opening a domain add to the time of a reply?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks.systems import Condition
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import Backbone, greedy_replies
from palette.directions import intervening
from tools.organism.probes import pooled_streams

ROUNDS, TOKENS = 9, 16


def latencies(
    backbone: Backbone,
    adapter: Adapter,
    edit: tuple[Any, Any],
    condition: Condition,
    asked: Sequence[list[int]],
) -> dict[str, float]:
    """Median seconds of a reply to one prompt, as a ratio to the backbone's, ways taken in turn.

    Hooks cost most on a model as small as the organism, where a matrix costs next to nothing.
    """
    whole = replace(backbone, model=with_deltas(backbone.model, adapter))

    def steered() -> None:
        for prompt in asked:
            if condition.holds(pooled_streams(backbone, [prompt]))[0]:
                with intervening(backbone, *edit):
                    greedy_replies(backbone, [prompt], TOKENS)
            else:
                greedy_replies(backbone, [prompt], TOKENS)

    def plain(model: Backbone, mounting: Callable[[], Any] = nullcontext) -> Callable[[], None]:
        def ask() -> None:
            with mounting():
                for prompt in asked:
                    greedy_replies(model, [prompt], TOKENS)

        return ask

    ways = {
        "backbone": plain(backbone),
        "merged into the weights": plain(whole),
        "mounted as hooks": plain(backbone, lambda: mounted(backbone.model, adapter)),
        "conditional steering": steered,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, ask in ways.items():
            started = time.perf_counter()
            ask()
            seconds[name].append(time.perf_counter() - started)
    return {
        name: round(median(a / b for a, b in zip(own, seconds["backbone"], strict=True)), 3)
        for name, own in seconds.items()
    }


def with_deltas(model: torch.nn.Module, adapter: Adapter) -> Any:
    """A copy of the model with W + ΔW in place of W."""
    whole = copy.deepcopy(model)
    for name, module in adapter.modules.items():
        weight = whole.get_submodule(name).get_parameter("weight")
        weight.data += (module.scale * module.lora_B @ module.lora_A).to(weight.dtype)
    return whole
