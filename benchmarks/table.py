"""The control table as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

ORDERS = {1: "single", 2: "pairs", 3: "triples"}
COLUMNS: tuple[tuple[str, str, Callable[[Sequence[float]], float], float], ...] = (
    ("authorised refused", "refused", max, 100),
    ("correct of known", "correct_of_known", min, 100),
    ("worst other", "worst_other", min, 100),
    ("worst floor", "worst_floor", min, 100),
    ("benign change", "benign_change", min, 100),
    ("KL, nats", "divergence", max, 1),
    ("seconds", "seconds", max, 1),
)
"""Heading, key, which of several combinations is the worst, and the unit's factor."""


def grouped(rows: Sequence[Row]) -> dict[tuple[str, int, str], list[Row]]:
    """The rows of each model, number of domains and method."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], len(row["authorised"]), row["method"]), []).append(row)
    return groups


def worst(rows: Sequence[Row], key: str, choose: Callable[[Sequence[float]], float]) -> float | None:
    """The worst value over combinations, or null where none has it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return choose(values) if values else None


def markdown(rows: Sequence[Row]) -> str:
    """One line a model, number of domains and method: the worst over all combinations of that size."""
    heads = ["model", "domains", "method", *(heading for heading, *_ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for (model, order, method), group in sorted(grouped(rows).items(), key=lambda item: item[0][:2]):
        size = f"{ORDERS.get(order, 'all')} ({len(group)})"
        cells = [model, size, method]
        for _, key, choose, factor in COLUMNS:
            value = worst(group, key, choose)
            if value is None:
                cells.append("–")
            elif key == "divergence":
                cells.append(f"{value:.4f}")
            else:
                cells.append(f"{value * factor:.0f}" if key == "seconds" else f"{value * factor:.1f} %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """What is answered rightly over what stays refused, worst combination each, one panel an order."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "palette"
    groups = {key: group for key, group in grouped(rows).items() if key[0] == "organism"}
    orders = sorted({order for _, order, _ in groups})
    methods = sorted({method for *_, method in groups})
    # Ten colours and a mark of each round: more methods than colours stay apart.
    styles = {method: (f"C{index % 10}", "os^"[index // 10]) for index, method in enumerate(methods)}
    named: set[str] = set()
    figure, panels = pyplot.subplots(
        1, len(orders), figsize=(3.4 * len(orders), 4.2), sharey=True, squeeze=False
    )
    for order, panel in zip(orders, panels[0], strict=True):
        for method in methods:
            group = groups.get(("organism", order, method))
            if group is None:
                continue
            floor = worst(group, "worst_floor", min)
            kept = min(value for value in (worst(group, "worst_other", min), floor) if value is not None)
            right = worst(group, "correct_of_known", min) or 0.0
            default, (colour, mark) = method == "distil", styles[method]
            panel.scatter(
                100 * kept, 100 * right, s=90 if default else 45, color=colour,
                marker="*" if default else mark, label=None if method in named else method, zorder=3,
            )  # fmt: skip
            named.add(method)
        panel.set_title(ORDERS.get(order, f"all {order}"))
        panel.set_xlabel("refusals kept elsewhere, %")
        panel.set_xlim(-4, 104)
        panel.grid(alpha=0.25)
    panels[0][0].set_ylabel("authorised answers right, % of known")
    panels[0][0].set_ylim(-4, 104)
    figure.legend(loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
