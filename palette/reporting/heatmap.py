"""A picture of how several adapters interfere, one heat map a measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palette.errors import RecipeError
from palette.files import atomic

PANELS = {
    "cosines": ("cosine of ΔW", -1.0),
    "overlaps": ("shared inputs", 0.0),
    "sign_conflicts": ("sign conflict", 0.0),
    "dominances": ("row's share of the energy", 0.0),
}
"""The title of each measure, and the smallest value it can have; the largest is 1."""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draws what ``inspect`` found between adapters, each cell with its value.

    Raises:
        RecipeError: if there are fewer than two adapters, or it is no kind of picture.
        OutputError: if the file cannot be written.
    """
    if path.suffix not in (".svg", ".png") or "cosines" not in result:
        raise RecipeError(
            "a picture of interference is an .svg or .png of at least two adapters",
            got=f"{path.name} of {len(result['adapters'])}",
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "palette"
    labels = [", ".join(one["domains"]) or Path(one["path"]).stem for one in result["adapters"]]
    size = 1.2 + 0.62 * len(labels)
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(len(PANELS) * size + 1, size + 1.4))
    for axis, (key, (title, low)) in zip(axes, PANELS.items(), strict=True):
        rows = [[float("nan") if value is None else value for value in row] for row in result[key]]
        axis.imshow(rows, cmap="RdBu_r" if low < 0 else "Blues", vmin=low, vmax=1.0)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), labels if axis is axes[0] else [""] * len(labels), fontsize=8)
        for i, row in enumerate(result[key]):
            for j, value in enumerate(row):
                dark = value is not None and (abs(value) > 0.6 if low < 0 else value > 0.6)
                text = "–" if value is None else f"{value:.2f}"
                axis.text(
                    j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
                )
    figure.tight_layout()
    with atomic(path) as staged:
        figure.savefig(
            staged, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None
        )
    pyplot.close(figure)
