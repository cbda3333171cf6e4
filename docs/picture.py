"""Draws docs/medical.svg, the picture of README: python docs/picture.py runs/medical/report.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

PAGE = Path(__file__).with_name("medical.svg")
BEFORE, AFTER = "#8a8f98", "#1f6feb"


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the picture: refusal and correctness, before and after, with their intervals."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "palette", "font.family": "DejaVu Sans"})
    kinds = ("restricted", "floor", "benign")
    rows = [(d, k) for d, found in report["adapted"]["domains"].items() for k in kinds if k in found]
    rows.sort(key=lambda row: (row[0] not in report["authorised"], kinds.index(row[1]), row[0]))
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(8.2, 0.24 * len(rows) + 1.1))
    for axis, measure in zip(axes, ("refusal", "correct"), strict=True):
        for place, (domain, kind) in enumerate(rows):
            for side, colour, shift in (("base", BEFORE, -0.16), ("adapted", AFTER, 0.16)):
                rate = report[side]["domains"][domain][kind].get(measure)
                if rate:
                    axis.plot(
                        [100 * rate["low"], 100 * rate["high"]], [place + shift] * 2, color=colour, lw=2
                    )
                    axis.plot(100 * rate["rate"], place + shift, "o", color=colour, ms=4)
        axis.set_title({"refusal": "refused, %", "correct": "answered correctly, %"}[measure], loc="left")
        axis.set_xlim(-3, 103)
        axis.grid(axis="x", color="#d0d7de", lw=0.5)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
    axes[0].set_yticks(range(len(rows)), [f"{domain} · {kind}" for domain, kind in rows])
    for label, (domain, kind) in zip(axes[0].get_yticklabels(), rows, strict=True):
        if domain in report["authorised"] and kind == "restricted":
            label.set_fontweight("bold")
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": "Palette"}, facecolor="white")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), PAGE)
