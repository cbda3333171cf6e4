"""The curves of training: loss over steps, a line for each training; in a page, or as a picture alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup

from palette.files import read_json
from palette.reporting.figures import (
    BOTTOM,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    LEFT,
    RIGHT,
    TOP,
    divergence_scale,
    grid_line,
    mark,
    padded,
    picture,
    signed,
    ticks,
)

TRAINING = Path("internalise") / "training.json"
LINES = 4
"""Colours that pages have for lines."""
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #5c584f } .axis, .track { stroke: #dedacf }
.curve polyline { stroke: currentColor } .curve text { fill: currentColor }
.line-0 { color: #0b6178 } .line-1 { color: #a4251c } .line-2 { color: #767165 } .line-3 { color: #1b6a3c }
@media (prefers-color-scheme: dark) {
text { fill: #aaa69c } .axis, .track { stroke: #33373b }
.line-0 { color: #72c6df } .line-1 { color: #ff9f94 } .line-2 { color: #a19c90 } .line-3 { color: #82d49d } }
</style>"""


def students_of(folder: Path) -> list[dict[str, Any]]:
    """What was tried in a run's folder and which was taken; nothing where that was not yet told.

    Raises:
        OutputError: if the artefact of internalise is damaged.
    """
    record = _record(folder)
    tried = [each for each in record.get("rounds", []) if "rank" in each]
    return [{**each, "chosen": number == record["round"]} for number, each in enumerate(tried)]


def losses_of(folder: Path) -> dict[str, list[float]]:
    """The losses, in nats, of each step of each training in a run's folder; none where it trained nothing.

    Raises:
        OutputError: if the artefact of internalise is damaged.
    """
    losses: Mapping[str, Sequence[float]] = _record(folder).get("losses", {})
    return {name: [loss for loss in each if isfinite(loss)] for name, each in losses.items()}


def _record(folder: Path) -> dict[str, Any]:
    """What internalise has written of its trainings, if it has."""
    found: dict[str, Any] = read_json(folder / TRAINING) if (folder / TRAINING).is_file() else {}
    return found


def curves(losses: Mapping[str, Sequence[float]]) -> Markup:
    """The losses of trainings as an SVG document that stands alone."""
    svg = str(drawing(losses)).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    # Behind the title, which comes first for those who cannot see.
    return Markup(svg.replace("</title>", f"</title>{STYLE}", 1))


def drawing(losses: Mapping[str, Sequence[float]]) -> Markup:
    """The losses of trainings, in nats, over their steps, as a picture that a page colours.

    The axis is logarithmic where they vary much; a training of no step has no line.
    """
    drawn = {name: each for name, each in losses.items() if each}
    values = [value for each in drawn.values() for value in each] or [0.0]
    scaled, decades = divergence_scale(values)
    low, high = padded([scaled(value) for value in values])
    last = max(map(len, drawn.values()), default=1)
    bottom, right = FRAME_HEIGHT - BOTTOM, FRAME_WIDTH - RIGHT

    def across(step: float) -> float:
        return LEFT + step / max(1, last) * (right - LEFT)

    def up(value: float) -> float:
        return TOP + (high - value) / (high - low) * (bottom - TOP)

    parts = [f'<path class="axis" fill="none" d="M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}"/>']
    parts += [mark(across(tick), bottom + 18, f"{tick:g}") for tick in ticks(0, last) if tick.is_integer()]
    for tick in decades or ticks(low, high):
        y = up(scaled(tick) if decades else tick)
        if TOP - 1 <= y <= bottom + 1:
            parts += [mark(LEFT - 8, y + 4.5, signed(tick, "g"), "end"), grid_line(LEFT, right, y, y)]
    for place, (name, each) in enumerate(drawn.items()):
        line = " ".join(
            f"{across(step):.1f},{up(scaled(value)):.1f}" for step, value in enumerate(each, start=1)
        )
        shape = f'<polyline fill="none" stroke-width="1.5" points="{line}"/>'
        named = mark(right - 4, TOP + 14 + 16 * place, name, "end")
        parts.append(f'<g class="curve line-{place % LINES}">{shape}{named}</g>')
    parts.append(mark((LEFT + right) / 2, FRAME_HEIGHT - 10, "step"))
    turned = f"translate(14 {(TOP + bottom) / 2:g}) rotate(-90)"
    parts.append(f'<text text-anchor="middle" transform="{turned}">loss, nats</text>')
    said = f"The loss of training: {told(drawn) or 'no step'}."
    return picture(FRAME_WIDTH, FRAME_HEIGHT, said, "".join(parts))


def told(losses: Mapping[str, Sequence[float]]) -> str:
    """From where to where the losses went, in words."""
    return "; ".join(
        f"{name} from {each[0]:.3g} to {each[-1]:.3g} nats in {len(each)} steps"
        for name, each in losses.items()
        if each
    )
