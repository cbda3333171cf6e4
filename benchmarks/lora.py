"""What does a linear layer with its low-rank update cost, forward and backward: in PEFT, and in Palette?

CPU seconds of one thread; the layer's own weight is frozen, and the gradients are those of its input and of
both factors. Both are run in turns on the same module, and give the same to rounding.

    python -m benchmarks.lora
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.machine import write
from palette.internalise.lora import ALPHA, quicken

SIZES = ((128, 128), (128, 352), (576, 576), (576, 1536), (1536, 576), (2048, 2048))
"""Inputs and outputs: the organism's, SmolLM2-135M's, and a larger model's."""
ROWS, TOKENS, RANK = 16, 48, 8
ROUNDS = 7


class Model(nn.Module):
    """One linear layer."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, out, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        found: torch.Tensor = self.linear(x)
        return found


def measured(wide: int, out: int) -> dict[str, Any]:
    """CPU milliseconds of both, the ratio, and the largest relative difference of what they give."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA * RANK, target_modules=["linear"])
    module: Any = get_peft_model(Model(wide, out), config).base_model.model.linear
    A, B = (factor["default"].weight for factor in (module.lora_A, module.lora_B))
    nn.init.normal_(B)
    x, g = torch.randn(ROWS, TOKENS, wide, requires_grad=True), torch.randn(ROWS, TOKENS, out)

    def run() -> list[torch.Tensor]:
        said = module(x)
        return [said.detach(), *torch.autograd.grad(said, (x, A, B), g)]

    def theirs() -> list[torch.Tensor]:
        vars(module).pop("forward", None)
        return run()

    def ours() -> list[torch.Tensor]:
        quicken(module)
        return run()

    pairs = zip(theirs(), ours(), strict=True)
    apart = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)
    count = max(5, int(2e8 / (wide * out * ROWS * TOKENS)) * 10)
    seconds: dict[str, list[float]] = {"peft": [], "palette": []}
    for _ in range(ROUNDS):
        for name, each in (("peft", theirs), ("palette", ours)):
            seconds[name].append(timed(each, count))
    milliseconds = {name: 1000 * median(each) for name, each in seconds.items()}
    return {
        "inputs": wide,
        "outputs": out,
        **{f"{name}_ms": round(each, 3) for name, each in milliseconds.items()},
        "ratio": round(milliseconds["palette"] / milliseconds["peft"], 3),
        "largest_relative_difference": apart,
    }


def timed(run: Callable[[], object], count: int) -> float:
    """CPU seconds of one run, of so many in a row."""
    started = time.thread_time()
    for _ in range(count):
        run()
    return (time.thread_time() - started) / count


def main() -> None:
    """Measures every size and writes the results."""
    torch.set_num_threads(1)
    rows = []
    for size in SIZES:
        rows.append(measured(*size))
        print(rows[-1], flush=True)
    write("lora", {"rank": RANK, "tokens": ROWS * TOKENS, "rows": rows})


if __name__ == "__main__":
    main()
