"""Heat maps of what the parts of a model's blocks are worth, as one SVG file: the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palette.files import atomic

NOTHING = "#e8e5dc"
"""The colour of a cell of which nothing is told."""


@dataclass(frozen=True)
class HeatMap:
    """One panel: a value for each row and part, NaN where there is none, and the end of its scale."""

    title: str
    values: Any
    """[row, part]: of each block in turn the attention and the MLP."""
    most: float


def scale(values: Any) -> float:
    """The end of a scale that holds all values and has 0 in its middle."""
    return float(np.nanmax(np.abs(values), initial=0.0, where=~np.isnan(values))) or 1.0


def draw_heat_maps(
    panels: Sequence[HeatMap], rows: Sequence[str], said: str, path: Path, across: int | None = None
) -> None:
    """Draws the panels, so many across, with the rows' names on the left and what a colour says on the right.

    Raises:
        OutputError: if the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "palette"
    across = across or len(panels)
    down, columns = len(panels) // across, panels[0].values.shape[1]
    size = (2.0 + across * (0.6 + 0.22 * columns), down * (1.2 + 0.28 * len(rows)))
    figure, axes = pyplot.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=NOTHING)
    for axis, panel in zip(axes.flat, panels, strict=True):
        image = axis.imshow(panel.values, cmap=colours, vmin=-panel.most, vmax=panel.most, aspect="auto")
        axis.set_title(f"{panel.title}, ±{panel.most:.2g}", fontsize=10, loc="left")
        axis.set_xticks(range(0, columns, 2), [str(layer) for layer in range(columns // 2)], fontsize=8)
        axis.set_xlabel("layer: attention, MLP", fontsize=8)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
    bar = figure.colorbar(image, ax=axes.ravel().tolist(), label=said)
    bar.set_ticks([-panels[-1].most, 0.0, panels[-1].most], labels=["−", "0", "+"])
    with atomic(path) as staged:
        figure.savefig(staged, format="svg", metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
