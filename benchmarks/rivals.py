"""Adapters of single domains, summed, measured as authorising tokens are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.policies import by_orders, opened, summed
from palette.adapters.files import read_adapter
from palette.evaluation.baseline import baseline_replies
from palette.mosaic.requests import Subset, replies_of
from palette.pipeline import run_stages
from palette.recipe import create_recipe
from palette.run import Run


def adapters_merged(path: Path, home: Path) -> dict[str, Any]:
    """The exact sum of each subset's adapters, on the split and the prompts of the tokens."""
    whole, assignment, asked = opened(path)
    adapters, worked = {}, time.process_time()
    for domain in whole.categories:
        recipe = create_recipe({**whole.basis, "name": domain, "authorise": [domain]})
        run_stages(recipe, "internalise", home / domain)
        adapters[domain] = read_adapter(home / domain)
    spent = round(time.process_time() - worked, 1)
    judge = baseline_replies(Run(create_recipe(whole.basis), home).assignment()).judge
    backbone = assignment.backbone

    def replies(subset: Subset) -> list[list[int]]:
        with summed(backbone, [adapters[name] for name in subset]):
            return replies_of(backbone, whole.evaluate, asked.prompts, asked.roles)

    numbers = sum(m.lora_A.numel() + m.lora_B.numel() for a in adapters.values() for m in a.modules.values())
    found = by_orders(whole, backbone, asked, replies, judge)
    return {**found, "seconds": {"cpu": spent}, "parameters": numbers}
