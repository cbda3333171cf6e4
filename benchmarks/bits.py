"""Does a model loaded in 4 bits come to the report of the same model in whole numbers?

``palette domain`` runs as shipped on both, on the organism's medical recipe. A figure is told apart where
the Wilson intervals of both do not meet. The extra ``bits`` is needed.

    python -m benchmarks.bits [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.domain import PALETTE, summary, timed
from benchmarks.machine import write
from palette.files import read_json
from palette.statistics.rates import wilson

RECIPE, TYPES = "recipes/medical.yaml", ("auto", "nf4")
FIGURES = ("refusal", "correct")


def counted(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """How many of how many prompts, by domain, kind and figure."""
    return {
        f"{domain}, {kind}, {figure}": (round(cell[figure]["rate"] * cell[figure]["n"]), cell[figure]["n"])
        for domain, kinds in report["adapted"]["domains"].items()
        for kind, cell in kinds.items()
        for figure in FIGURES
        if cell.get(figure) and cell[figure].get("rate") is not None
    }


def main() -> None:
    """Measures and writes ``results/bits.json``; runs are kept in the folder that is named, or ``runs``."""
    runs = Path(sys.argv[1] if sys.argv[1:] else "runs")
    for dtype in TYPES:
        timed(*PALETTE, "domain", RECIPE, "--set", f"dtype={dtype}", "-o", runs / dtype)
    reports = {dtype: read_json(runs / dtype / "report.json") for dtype in TYPES}
    plain, few = map(counted, reports.values())
    apart = []
    for name, whole in plain.items():
        ours, theirs = wilson(*whole), wilson(*few[name])
        if ours.low > theirs.high or theirs.low > ours.high:
            apart.append(name)
    rows = {dtype: summary(report) for dtype, report in reports.items()}
    write("bits", {"runs": rows, "figures": len(plain), "apart": apart})


if __name__ == "__main__":
    main()
