"""Does MMLU on the backbone in memory give what lm-eval's own command gives, and do the public suites run?

PALETTE_DATA=FOLDER python -m benchmarks.utility [ADAPTER], where FOLDER holds the public files as the
suites name them. The organism knows an invented world only: its MMLU is chance, and its refusals of
real prompts mean nothing. What is measured is that both ways agree, question by question.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import write
from palette.files import read_json
from palette.stages.suite import Places, suite

RECIPES = Path(__file__).parents[1] / "recipes" / "suites"
LIMIT, PROMPTS = 25, 60
"""Questions a subject, and prompts a public set: enough to see both ways agree, in minutes."""
CUT = (f"limit={PROMPTS}", "reply_tokens=32")
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def own(command: str, folder: Path) -> dict[str, dict[str, tuple[str, float]]]:
    """The letter and the score of every question by lm-eval's own command, by task."""
    words = [sys.executable, "-m", *shlex.split(command), "--log_samples", "--output_path", str(folder)]
    subprocess.run(words, check=True, capture_output=True, env=ENVIRONMENT)
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        name = path.name.removeprefix("samples_palette_mmlu_").rpartition("_")[0]
        for line in path.read_text().splitlines():
            one = json.loads(line)
            costs = [float(each[0]) for each in one["filtered_resps"]]
            letter = "ABCD"[costs.index(max(costs))]
            found.setdefault(name, {})[f"{name}-{one['doc_id']}"] = (letter, one["acc"])
    return found


def agreement(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """How many questions both ways answer alike, and both accuracies a subject."""
    theirs = own(result["provenance"]["commands"]["mmlu"], folder / "theirs")
    ours = {one["id"]: one["base"] for one in read_json(folder / "items.json")["mmlu"]}
    [line] = [one for one in result["suites"] if one["name"] == "mmlu"]
    questions = {name: letter for group in theirs.values() for name, (letter, _) in group.items()}
    return {
        "questions": len(questions),
        "same_choice": sum(ours[name] == letter for name, letter in questions.items()),
        "accuracy": {
            name: {
                "palette": line["base"][f"acc.{name}"]["rate"],
                "lm_eval": sum(score for _, score in group.values()) / len(group),
            }
            for name, group in theirs.items()
        },
        "all": line["base"]["acc"],
        "adapted": line["adapted"].get("acc"),
        "change": line["change"],
        "seconds": line["seconds"],
    }


def main() -> None:
    """Writes results/utility.json."""
    data = Path(os.environ["PALETTE_DATA"])
    adapter = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = [f"measures.{place}.limit={LIMIT if place == 0 else 5}" for place in range(7)]
        short = ["measures.1.reply_tokens=32"]
        asked = [f"measures.{place}.{key}" for place in range(3) for key in CUT]
        utility, _ = suite(
            RECIPES / "utility.yaml", "organism", adapter, Places(data, folder / "u"), [*few, *short]
        )
        refusals, _ = suite(
            RECIPES / "over-refusal.yaml", "organism", adapter, Places(data, folder / "o"), asked
        )
        distance, _ = suite(RECIPES / "distance.yaml", "organism", adapter, Places(data, folder / "d"))
        figures = {
            "mmlu": agreement(utility, folder / "u"),
            "suites": [*utility["suites"][1:], *refusals["suites"], *distance["suites"]],
            "adapter": utility["adapter"],
            "lm_eval": utility["provenance"]["versions"]["lm_eval"],
            "limit": {"mmlu": LIMIT, "prompts": PROMPTS},
        }
    write("utility", figures)


if __name__ == "__main__":
    main()
