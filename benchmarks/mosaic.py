"""What do control tokens do beside a policy in the prompt, and beside adapters?

Restricting: an in-context policy, supervised fine-tuning with LoRA, and tokens of 1, 2 and 5 slots; the
ablations of arXiv 2603.16210. Authorising: tokens beside the exact sum of adapters.

    PALETTE_BENCH_HOME=~/bench python -m benchmarks.mosaic [ROW ...]

Rows are measured on the test split, tuned on validation: ablations on fewer prompts, as each row says. With
rows named, these alone are measured anew; the others stay. What was trained is kept in the home.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, write
from benchmarks.policies import in_context, supervised_lora
from benchmarks.rivals import adapters_merged
from palette.mosaic.evaluation import SubsetPlan
from palette.mosaic.settings import PLAN, TokenPlan
from palette.mosaic.tokens import read_tokens
from palette.mosaic.training import TOKEN_RECORD
from palette.pipeline import add_category
from palette.pipeline import train_tokens as train_recipe
from palette.recipe import TokenRecipe, load_token_recipe
from palette.run import Run
from palette.stages.tokens import evaluate_tokens, train_tokens

RECIPES = Path(__file__).parents[1] / "recipes"
RESTRICT, AUTHORISE = RECIPES / "mosaic.yaml", RECIPES / "mosaic-authorise.yaml"
ADDED = "treasury"

VARIANTS: dict[str, tuple[tuple[str, ...], TokenPlan]] = {
    "tokens 5": ((), PLAN),
    "tokens 2": (("train.slots=2",), PLAN),
    "tokens 1": (("train.slots=1",), PLAN),
    "independent": ((), replace(PLAN, joint=False)),
    "without KL": ((), replace(PLAN, divergence_weight=0.0)),
    "λ 0.3": ((), replace(PLAN, divergence_weight=0.3)),
    "λ 3": ((), replace(PLAN, divergence_weight=3.0)),
    "negatives 0": ((), replace(PLAN, negatives=0.0)),
    "negatives 0.5": ((), replace(PLAN, negatives=0.5)),
    "negatives 2": ((), replace(PLAN, negatives=2.0)),
    "place before": (("train.place=before",), PLAN),
    "place bos": (("train.place=bos",), PLAN),
    "place turn": (("train.place=turn",), PLAN),
}
"""Rows of tokens that restrict, by the keys and by the plan that they are trained by."""

SEEN = "seen by replies"
"""The tokens of the first row, kept in sight of what is said: nothing is trained for it."""

WHOLE = ("tokens 5", "tokens 2", "tokens 1", "independent")
ABLATION = SubsetPlan(prompts=25)
"""What rows that are not whole are evaluated on, a category, kind and subset."""


def tokens_row(
    home: Path, name: str, overrides: Sequence[str], plan: TokenPlan, asked: SubsetPlan
) -> dict[str, Any]:
    """The figures of one training of tokens that restrict."""
    folder = home / name.replace(" ", "-")
    whole = load_token_recipe(RESTRICT, overrides)
    return measured(whole, folder, lambda: train_tokens(whole, no_search, folder, plan=plan), asked)


def no_search(run: Run, recipe: TokenRecipe, domain: str) -> Run:
    """Nothing: tokens that restrict are taught one refusal."""
    raise AssertionError(f"{domain} of {recipe.name} is searched")


def incremental_row(home: Path) -> dict[str, Any]:
    """Four categories trained together, the fifth added with their tokens frozen."""
    folder = home / "incremental"
    whole = load_token_recipe(RESTRICT)
    four = whole.widened(set(whole.categories) - {ADDED})

    def make() -> object:
        train_recipe(four, folder)
        done = ADDED in read_tokens(folder).categories
        return None if done else add_category(four, ADDED, folder)

    return measured(whole, folder, make)


def authorise_row(home: Path) -> dict[str, Any]:
    """The figures of tokens that authorise."""
    folder, whole = home / "authorise-tokens", load_token_recipe(AUTHORISE)
    return measured(whole, folder, lambda: train_recipe(whole, folder))


def measured(
    recipe: TokenRecipe, folder: Path, make: Callable[[], object], asked: SubsetPlan | None = None
) -> dict[str, Any]:
    """Trains and evaluates, with the seconds and the CPU seconds of training."""
    asked = asked or SubsetPlan()
    timed = folder / "seconds.json"
    if not timed.is_file():
        started, worked = time.monotonic(), time.process_time()
        make()
        seconds = {"wall": time.monotonic() - started, "cpu": time.process_time() - worked}
        timed.write_text(json.dumps({key: round(value, 1) for key, value in seconds.items()}))
    report, _ = evaluate_tokens(recipe, output=folder, plan=asked)
    record = json.loads((folder / TOKEN_RECORD).read_text())
    return {
        **figures(report),
        "prompts": asked.prompts,
        "seconds": json.loads(timed.read_text()),
        "steps": {name: trained["steps"] for name, trained in record["trained"].items()},
        "parameters": report["parameters"],
        "latency": report["latency"],
        "passed": report["gate"]["passed"],
        "released": report["released"],
    }


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Shares by order, in [0, 1]."""
    names = ("defence", "over_refusal", "utility", "utility_base", "unchanged")
    orders = {
        order: {name: round(found[name]["rate"], 4) for name in names}
        | {"correct": round(found["correct"]["rate"], 4) if "correct" in found else None}
        for order, found in report["orders"].items()
    }
    worst = {
        order: min(one["defence"]["rate"] for one in report["subsets"] if one["order"] == int(order))
        for order in orders
    }
    return {"orders": orders, "worst_defence": worst}


def rows(home: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every row by its name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "in-context policy": lambda: in_context(RESTRICT),
        "SFT LoRA": lambda: supervised_lora(RESTRICT, home / "sft"),
    }
    for name, (overrides, plan) in VARIANTS.items():
        asked = SubsetPlan() if name in WHOLE else ABLATION
        found[name] = partial(tokens_row, home, name, overrides, plan, asked)
    found[SEEN] = lambda: tokens_row(home, "tokens 5", (), PLAN, SubsetPlan(released=False))
    found["incremental"] = lambda: incremental_row(home)
    found["authorise tokens"] = lambda: authorise_row(home)
    found["authorise adapters"] = lambda: adapters_merged(AUTHORISE, home / "adapters")
    return found


def markdown(table: dict[str, Any]) -> str:
    """The table as LOG.md has it: defence / over-refusal / utility of each order, in percent."""
    heads = ["row", *(f"order {order}" for order in range(1, 5)), "CPU s", "numbers", "tokens in replies"]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) - 1)]
    for name, row in table.items():
        cells = []
        for order in "1234":
            one = row["orders"].get(order)
            cells.append(
                "–"
                if one is None
                else f"{one['defence']:.1%} / {one['over_refusal']:.1%} / {one['utility']:.1%}"
            )
        seconds = row.get("seconds", {}).get("cpu", "–")
        seen = {True: "released", False: "seen"}.get(row.get("released"), "–")
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds} | {row.get('parameters', '–')} | {seen} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes results/mosaic.json and mosaic.md; rows appear as they are measured."""
    path = RESULTS / "mosaic.json"
    table = json.loads(path.read_text())["rows"] if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("PALETTE_BENCH_HOME", folder)) / "mosaic"
        known = rows(home)
        for name in sys.argv[1:] or known:
            table[name] = known[name]()
            ordered = {key: table[key] for key in known if key in table}
            write("mosaic", {"rows": ordered})
            (RESULTS / "mosaic.md").write_text(markdown(ordered))


if __name__ == "__main__":
    main()
