"""Heat maps in a file, the same bytes each time: of what parts of blocks are worth, and of interference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palette.errors import RecipeError
from palette.files import atomic
from palette.reporting.figures import colours

NOTHING = "#e8e5dc"
"""The colour of a cell of which nothing is told."""
SCALES = {"share": ("sheet", "heat"), "signed": ("fail", "sheet", "after")}
"""The colours of a report's page between which values are shown."""


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
    pyplot = _pyplot()
    from matplotlib import colormaps

    across = across or len(panels)
    down, columns = len(panels) // across, panels[0].values.shape[1]
    size = (2.0 + across * (0.6 + 0.22 * columns), down * (1.2 + 0.28 * len(rows)))
    figure, axes = pyplot.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    shades = colormaps["RdBu_r"].with_extremes(bad=NOTHING)
    for axis, panel in zip(axes.flat, panels, strict=True):
        image = axis.imshow(panel.values, cmap=shades, vmin=-panel.most, vmax=panel.most, aspect="auto")
        axis.set_title(f"{panel.title}, ±{panel.most:.2g}", fontsize=10, loc="left")
        axis.set_xticks(range(0, columns, 2), [str(layer) for layer in range(columns // 2)], fontsize=8)
        axis.set_xlabel("layer: attention, MLP", fontsize=8)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
    bar = figure.colorbar(image, ax=axes.ravel().tolist(), label=said)
    bar.set_ticks([-panels[-1].most, 0.0, panels[-1].most], labels=["−", "0", "+"])
    with atomic(path) as staged:
        figure.savefig(staged, format="svg", metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def draw_interference(measures: Sequence[tuple[Any, str, float]], labels: Sequence[str], path: Path) -> None:
    """Draws what is measured between adapters, each cell with its value.

    ``measures`` are tables [row, column], none where there are no pairs, their titles and least values.

    Raises:
        RecipeError: if there are fewer than two adapters, or it is no kind of picture.
        OutputError: if the file cannot be written.
    """
    if path.suffix not in (".svg", ".png") or len(labels) < 2:
        raise RecipeError(
            "a picture of interference is an .svg or .png of at least two adapters",
            got=f"{path.name} of {len(labels)}",
        )
    pyplot, of = _pyplot(), colours()
    from matplotlib.colors import LinearSegmentedColormap

    blend = LinearSegmentedColormap.from_list
    scales = {name: blend(name, [of[each] for each in parts]) for name, parts in SCALES.items()}
    size = 1.2 + 0.62 * len(labels)
    figure, axes = pyplot.subplots(1, len(measures), figsize=(len(measures) * size + 1, size + 1.4))
    for axis, (table, title, low) in zip(axes, measures, strict=True):
        values = np.array(table, dtype=float)
        axis.imshow(values, cmap=scales["signed" if low < 0 else "share"], vmin=low, vmax=1.0)
        axis.set_title(title, fontsize=10, color=of["ink"], loc="left")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0, labelcolor=of["soft"])
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), labels if axis is axes[0] else [""] * len(labels), fontsize=8)
        for (i, j), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            colour = of["sheet"] if low < 0 and abs(value) > 0.6 else of["ink"]
            axis.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    figure.tight_layout()
    form, undated = path.suffix[1:], {"Date": None}
    with atomic(path, "name another file with --picture") as staged:
        figure.savefig(staged, format=form, metadata=undated if form == "svg" else None)
    pyplot.close(figure)


def _pyplot() -> Any:
    """The library's figures, without a screen, and with ids that are no random ones."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "palette"
    from matplotlib import pyplot

    return pyplot
