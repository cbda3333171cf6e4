"""The curves of training as a picture that stands alone: loss over steps, a line for each training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

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

COLOURS = ("#0b6178", "#a4251c", "#767165", "#1b6a3c")
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #5c584f } .axis, .track { stroke: #dedacf }
@media (prefers-color-scheme: dark) { text { fill: #aaa69c } .axis, .track { stroke: #33373b } }
</style>"""


def curves(losses: Mapping[str, Sequence[float]]) -> Markup:
    """An SVG document of the losses of trainings, in nats, over their steps.

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

    parts = [STYLE, f'<path class="axis" fill="none" d="M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}"/>']
    parts += [mark(across(tick), bottom + 18, f"{tick:g}") for tick in ticks(0, last) if tick.is_integer()]
    for tick in decades or ticks(low, high):
        y = up(scaled(tick) if decades else tick)
        if TOP - 1 <= y <= bottom + 1:
            parts += [mark(LEFT - 8, y + 4.5, signed(tick, "g"), "end"), grid_line(LEFT, right, y, y)]
    for place, (name, each) in enumerate(drawn.items()):
        colour = COLOURS[place % len(COLOURS)]
        line = " ".join(
            f"{across(step):.1f},{up(scaled(value)):.1f}" for step, value in enumerate(each, start=1)
        )
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{line}"/>')
        y = TOP + 14 + 16 * place
        parts.append(
            f'<text x="{right - 4:g}" y="{y:g}" text-anchor="end" style="fill:{colour}">{escape(name)}</text>'
        )
    parts.append(mark((LEFT + right) / 2, FRAME_HEIGHT - 10, "step"))
    turned = f"translate(14 {(TOP + bottom) / 2:g}) rotate(-90)"
    parts.append(f'<text text-anchor="middle" transform="{turned}">loss, nats</text>')
    said = "; ".join(
        f"{name} from {each[0]:.3g} to {each[-1]:.3g} nats in {len(each)} steps"
        for name, each in drawn.items()
    )
    svg = picture(FRAME_WIDTH, FRAME_HEIGHT, f"The loss of training: {said or 'no step'}.", "".join(parts))
    return Markup(str(svg).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
