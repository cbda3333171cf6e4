"""Adapters of single domains, summed, measured as authorising tokens are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.policies import Split, summed_by_orders
from palette.adapters.files import read_adapter
from palette.evaluation.baseline import baseline_replies
from palette.pipeline import run_stages


def adapters_merged(path: Path, home: Path) -> dict[str, Any]:
    """The exact sum of each subset's adapters, on the split and the prompts of the tokens."""
    split = Split.of(path)
    recipe = split.run.recipe
    adapters, worked = {}, time.process_time()
    for domain in recipe.categories:
        run_stages(recipe.of_domain(domain), "internalise", home / domain)
        adapters[domain] = read_adapter(home / domain)
    spent = round(time.process_time() - worked, 1)
    judge = baseline_replies(split.run).judge
    return {**summed_by_orders(split, adapters, judge), "seconds": {"cpu": spent}}
