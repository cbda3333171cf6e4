"""Does one command take a user from nothing to a measured adapter, and another merge two of them?

Runs the commands as a user types them, on the shipped organism: every recipe, the second call that
changes nothing, the merge of medical and legal, and the checks that an adapter is what it says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import write

DOMAINS = ("medical", "legal", "cybersecurity", "finance", "chemistry", "energy")
PALETTE = (sys.executable, "-m", "palette")


def timed(*arguments: object) -> tuple[float, int, str]:
    """Wall seconds, exit status and standard output of one command."""
    started = time.monotonic()
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    return round(time.monotonic() - started, 2), done.returncode, done.stdout


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report that the bars are about."""
    adapted, base = report["adapted"], report["base"]
    opened, domains = report["authorised"], adapted["domains"]
    kept = [
        cells["restricted"]["refusal"]["rate"]
        for name, cells in domains.items()
        if "restricted" in cells and name not in opened
    ]
    floors = [c["floor"]["refusal"]["rate"] for c in domains.values() if "floor" in c]
    right = [side["utility"]["benign_correct"]["rate"] for side in (base, adapted)]
    return {
        "refusal": {d: domains[d]["restricted"]["refusal"]["rate"] for d in opened},
        "correct": {d: domains[d]["restricted"]["correct"]["rate"] for d in opened},
        "worst_other_domain": min(kept),
        "worst_floor": min(floors),
        "benign_correct_before": right[0],
        "benign_correct_after": right[1],
        "divergence": adapted["divergence"],
        "gate": report["gate"]["passed"],
        "failed_rules": [r["name"] for r in report["gate"]["rules"] if not r["passed"]],
    }


def merge_error(parts: list[Path], merged: Path) -> float:
    """Largest relative error of a merged module's ΔW against the sum of its parts."""
    from palette.adapters.files import read_adapter

    adapters = [read_adapter(part) for part in parts]
    result = read_adapter(merged)
    worst = 0.0
    for name, module in result.modules.items():
        total = sum(a.modules[name].delta() for a in adapters if name in a.modules)
        worst = max(worst, float((module.delta() - total).norm() / total.norm()))
    return worst


def peft_difference(folder: Path) -> float:
    """Largest difference of logits between PEFT's loading of an adapter and Palette's mounting."""
    import torch
    from peft import PeftModel

    from palette import organism
    from palette.adapters.files import read_adapter
    from palette.adapters.mounting import mounted
    from palette.backbones import load_backbone

    backbone = load_backbone(organism.weights())
    ids = torch.tensor([backbone.render([{"role": "user", "content": "what is 3 plus 4 ?"}])])
    with torch.no_grad():
        with mounted(backbone.model, read_adapter(folder)):
            ours = backbone.model(ids).logits
        theirs = PeftModel.from_pretrained(backbone.model, folder)(ids).logits
    return float((ours - theirs).abs().max())


def main() -> None:
    """Measures and writes ``results/domain.json``; all domains, or those named beside medical and legal."""
    domains = ("medical", "legal", *sys.argv[1:]) if sys.argv[1:] else DOMAINS
    figures: dict[str, Any] = {"help_seconds": min(timed(*PALETTE, "--help")[0] for _ in range(5))}
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place)
        for domain in domains:
            command = (*PALETTE, "domain", f"recipes/{domain}.yaml", "-o", runs / domain, "--json")
            seconds, _, text = timed(*command)
            report = json.loads(text)
            stages = report["provenance"]["seconds"]
            figures[domain] = {"seconds": seconds, "stages": stages, **summary(report)}
            if domain == "medical":
                figures["second_call_seconds"] = timed(*command)[0]
            print(domain, json.dumps(figures[domain]), file=sys.stderr, flush=True)
        parts, merged = [runs / "medical", runs / "legal"], runs / "medical+legal"
        seconds, _, text = timed(*PALETTE, "merge", *parts, "-o", merged, "--json")
        evaluate = ("--model", "organism", "--prompts", "organism", "--floor", "weapons")
        opened = ("--authorise", "medical,legal", "--adapter", merged, "--json")
        evaluation, _, report_text = timed(*PALETTE, "evaluate", *evaluate, *opened)
        figures["merge"] = {
            "seconds": seconds,
            "rank": json.loads(text)["rank"],
            "retained_energy": json.loads(text)["retained_energy"],
            "relative_error": merge_error(parts, merged),
            "evaluate_seconds": evaluation,
            **summary(json.loads(report_text)),
        }
        figures["peft_logit_difference"] = max(peft_difference(f) for f in (*parts, merged))
    write("domain", figures)


if __name__ == "__main__":
    main()
