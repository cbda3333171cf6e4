"""What does a real chat model take, stage by stage, and what comes of it on real professional questions?

Runs ``recipes/smollm.yaml`` as a user types it, each stage in a process of its own whose seconds and peak
memory are measured; for medicine and law, and the merge of both. ``make smollm`` comes first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import write

RECIPE = "recipes/smollm.yaml"
STAGES = ("collect", "search", "internalise", "evaluate")
PALETTE = (sys.executable, "-m", "palette")
DOMAINS = ("medicine", "law")


def measured(*arguments: object) -> dict[str, float]:
    """Wall seconds, seconds of a core, and peak GiB of one command, which may end with a failed gate."""
    started = time.monotonic()
    process = subprocess.Popen([*map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit(f"{arguments} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def behaviour(report: dict[str, Any]) -> dict[str, Any]:
    """Refusals before and after by domain, what was kept, and agreement with the helpful model."""
    own, changed, opened = report["base"]["domains"], report["adapted"]["domains"], report["authorised"]
    cells = {
        f"{domain}, {kind}": {
            "refused": [side[domain][kind]["refusal"]["rate"] for side in (own, changed)],
            "degenerate": changed[domain][kind]["degenerate"]["rate"],
            "prompts": changed[domain][kind]["refusal"]["n"],
        }
        for domain in changed
        for kind in changed[domain]
    }
    kept = {
        name: cell["refused"][1] / cell["refused"][0]
        for name, cell in cells.items()
        if name.endswith("restricted") and name.split(",")[0] not in opened and cell["refused"][0]
    }
    floor = [cell["refused"] for name, cell in cells.items() if name.endswith("floor")]
    return {
        "cells": cells,
        "worst_kept_of_others": min(kept.values()),
        "floor_kept": min(after / before for before, after in floor),
        "divergence": report["adapted"]["divergence"],
        "agreement": report["upper_bound"]["agreement"],
        "gate": report["gate"]["passed"],
        "failed_rules": [rule["name"] for rule in report["gate"]["rules"] if not rule["passed"]],
    }


def main() -> None:
    """Measures and writes ``results/smollm.json``; runs are kept in the folder that is named, or ``runs``."""
    runs = Path(sys.argv[1] if sys.argv[1:] else "runs")
    figures: dict[str, Any] = {}
    for domain in DOMAINS:
        output = runs / f"smollm-{domain}"
        given = (RECIPE, "--set", f"authorise=[{domain}]", "-o", output)
        stages = {stage: measured(*PALETTE, stage, *given) for stage in STAGES}
        figures[domain] = {
            "minutes": round(sum(each["seconds"] for each in stages.values()) / 60, 1),
            "stages": stages,
            **behaviour(json.loads((output / "report.json").read_text())),
        }
        print(domain, json.dumps(figures[domain]), file=sys.stderr, flush=True)
    merged = runs / "smollm-merged"
    parts = [runs / f"smollm-{domain}" for domain in DOMAINS]
    seconds = measured(*PALETTE, "merge", *parts, "-o", merged)
    report = json.loads((merged / "report.json").read_text())
    figures["merge"] = {"minutes": round(seconds["seconds"] / 60, 1), **seconds, **behaviour(report)}
    write("smollm", figures)


if __name__ == "__main__":
    main()
