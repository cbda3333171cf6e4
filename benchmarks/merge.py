"""How fast, how exact and how large is a merge, against PEFT's?

Per module: PEFT's ``add_weighted_adapter`` (svd, ties_svd, linear, cat) and our merge of the same
adapters at the same rank, one thread each, against the dense float64 truth. File to file: `palette
merge` of N rank-16 adapters of the shape of an 8B model, as a user types it.

    python -m benchmarks.merge [module | file]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.machine import RESULTS, write
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import adapter_writer
from palette.merging.combining import MergePlan, merged_modules
from palette.merging.inputs import MergeInput
from palette.merging.methods import OptionValue

SHAPES = ((1024, 4096), (4096, 4096), (14336, 4096))
RANK, ADAPTERS = 16, 4
NUMBERS = (2, 4, 8)
DENSITY = 0.2
SLOW = ("svd", "ties_svd")


def random_modules(shape: tuple[int, int], count: int) -> list[LoraModule]:
    """Random rank-16 deltas of one shape."""
    generator = torch.Generator().manual_seed(0)
    d_out, d_in = shape
    return [
        LoraModule(
            torch.randn(RANK, d_in, generator=generator) / d_in**0.5,
            torch.randn(d_out, RANK, generator=generator) / RANK**0.5,
        )
        for _ in range(count)
    ]


class Linear(nn.Module):
    """A model of one linear layer."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[1], shape[0], bias=False)


def peft_of(modules: list[LoraModule]) -> Any:
    """A PEFT model of one layer, the deltas its adapters, named by their numbers."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["layer"])
    model = get_peft_model(Linear(modules[0].shape), config, adapter_name="0")
    for index, module in enumerate(modules):
        if index:
            model.add_adapter(str(index), config)
        layer = model.base_model.model.layer
        layer.lora_A[str(index)].weight.data.copy_(module.lora_A)
        layer.lora_B[str(index)].weight.data.copy_(module.lora_B)
    return model


def best_of(repetitions: int, call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of the fastest of several calls, and what the last one gave."""
    seconds, result = [], None
    for _ in range(repetitions):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def theirs(model: Any, kind: str) -> tuple[float, torch.Tensor]:
    """PEFT's seconds, and its merged ΔW in float64."""
    names = [name for name in model.peft_config if name.isdigit()]
    options: dict[str, Any] = {"combination_type": kind}
    if kind in SLOW:
        options["svd_rank"] = RANK
    if kind == "ties_svd":
        options["density"] = DENSITY

    def call() -> None:
        if kind in model.peft_config:
            model.delete_adapter(kind)
        model.add_weighted_adapter(names, [1.0] * len(names), kind, **options)

    seconds, _ = best_of(1 if kind in SLOW else 3, call)
    return seconds, model.base_model.model.layer.get_delta_weight(kind).detach().double()


def ours(modules: list[LoraModule], method: str, rank: int | None) -> tuple[float, torch.Tensor]:
    """Our seconds, and our merged ΔW in float64."""
    backbone = BackboneIdentity("one")
    inputs = [MergeInput(Adapter({"layer": module}, backbone)) for module in modules]
    for one in inputs:
        _ = one.adapter.digest
    options: dict[str, OptionValue] = {"density": DENSITY, "elect": "before"} if method == "ties" else {}
    plan = MergePlan(inputs, method, options, rank)
    seconds, found = best_of(5, lambda: next(iter(merged_modules(plan))))
    return seconds, found.truncation.module.delta()


def dense_ties(modules: list[LoraModule]) -> torch.Tensor:
    """PEFT's own TIES on dense float64 task vectors."""
    from peft.utils.merge_utils import ties

    return ties(
        [module.delta() for module in modules], torch.ones(len(modules), dtype=torch.float64), DENSITY
    )


def module_rows() -> list[dict[str, Any]]:
    """One row a shape and a way of merging."""
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        modules = random_modules(shape, ADAPTERS)
        truth = sum((module.delta() for module in modules), torch.zeros(shape, dtype=torch.float64))
        model = peft_of(modules)
        pairs = {"linear": ("weighted_sum", RANK), "cat": ("weighted_sum", None)}
        pairs |= {"svd": ("weighted_sum", RANK), "ties_svd": ("ties", RANK)}
        for kind, (method, rank) in pairs.items():
            wanted = dense_ties(modules) if kind == "ties_svd" else truth
            their_seconds, their_delta = theirs(model, kind)
            our_seconds, our_delta = ours(modules, method, rank)
            rows.append(
                {
                    "shape": list(shape),
                    "adapters": ADAPTERS,
                    "peft": kind,
                    "palette": f"{method}, {'exact' if rank is None else f'rank {rank}'}",
                    "peft_seconds": round(their_seconds, 4),
                    "palette_seconds": round(our_seconds, 5),
                    "ratio": round(their_seconds / our_seconds, 1),
                    "peft_error": float((their_delta - wanted).norm() / wanted.norm()),
                    "palette_error": float((our_delta - wanted).norm() / wanted.norm()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def names_and_shapes() -> dict[str, tuple[int, int]]:
    """The linear layers of an 8B Llama."""
    shapes = {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (14336, 4096),
        "mlp.up_proj": (14336, 4096),
        "mlp.down_proj": (4096, 14336),
    }
    return {f"model.layers.{i}.{name}": shape for i in range(32) for name, shape in shapes.items()}


def plant(folder: Path, seed: int) -> None:
    """Writes a random adapter of an 8B model's shape."""
    generator = torch.Generator().manual_seed(seed)
    layers = names_and_shapes()
    with adapter_writer(folder, BackboneIdentity("8b")) as writer:
        for name in sorted(layers):
            d_out, d_in = layers[name]
            lora_A = torch.randn(RANK, d_in, generator=generator) / d_in**0.5
            writer.add(name, LoraModule(lora_A, torch.randn(d_out, RANK, generator=generator)))
        writer.finish({"domains": [f"domain{seed}"]})


def file_rows(home: Path) -> list[dict[str, Any]]:
    """Seconds and peak memory of the command, for several numbers of adapters, exact and at rank 16."""
    paths = [home / f"a{seed}" for seed in range(max(NUMBERS))]
    for seed, path in enumerate(paths):
        plant(path, seed)
    rows = []
    for count in NUMBERS:
        for extra in ([], ["--rank", str(RANK)]):
            out = home / f"out{count}{''.join(extra)}"
            command = [sys.executable, "-m", "palette", "merge", *map(str, paths[:count]), "-o", str(out)]
            started = time.perf_counter()
            process = subprocess.Popen([*command, *extra, "--json"], stdout=subprocess.PIPE)
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            rows.append(
                {
                    "adapters": count,
                    "rank": json.loads(said)["rank"],
                    "seconds": round(time.perf_counter() - started, 2),
                    "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
                    "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
                    "retained_energy": json.loads(said)["retained_energy"],
                }
            )
            print(rows[-1], flush=True)
            for file in out.iterdir():
                file.unlink()
    return rows


def main() -> None:
    """Writes results/merge.json; with one argument only that part is measured anew."""
    part = sys.argv[1] if len(sys.argv) > 1 else None
    path = RESULTS / "merge.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known.pop("machine", None)
    if part in (None, "file"):
        with tempfile.TemporaryDirectory() as home:
            known["file_to_file"] = file_rows(Path(home))
    if part in (None, "module"):
        known["modules"] = module_rows()
    write("merge", known)


if __name__ == "__main__":
    main()
