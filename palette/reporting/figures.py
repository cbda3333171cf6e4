"""How the report writes numbers, and its plots as inline SVG with a text alternative; pages colour them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from math import floor, log10

from markupsafe import Markup, escape

from palette.reporting.sections import Point
from palette.statistics.rates import Corrected, Rate

NARROW = "\u202f"
"""A narrow no-break space, between a number and its unit."""

FRAME_WIDTH, FRAME_HEIGHT = 440.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 14.0, 52.0
"""Size of a scatter plot and the margins around its frame, in pixels."""

DECADES = 20
"""From this ratio of largest to smallest divergence its axis is logarithmic."""


def colours() -> dict[str, str]:
    """The pages' light colours by name, as their style sheet states them, for pictures beside them."""
    style = files("palette.reporting").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#\w+)", style.partition("}")[0]))


def signed(number: float, style: str) -> str:
    """A number in a format style, with a proper minus sign."""
    return format(number, style).replace("-", "\u2212")


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{share * 100:.1f}{NARROW}%"


def spoken(rate: Rate | Corrected) -> str:
    """A rate with its interval, and its counts where it has them, in words."""
    counts = f", {rate.k} of {rate.n}" if isinstance(rate, Rate) else ""
    return f"{percent(rate.rate)} ({rate.low * 100:.1f} to {percent(rate.high)}{counts})"


def nats(value: float | None) -> str:
    """A divergence with its unit; one near zero only as such."""
    if value is None:
        return "not finite"
    shown = "under 0.0001" if 0 < abs(value) < 0.0001 else signed(value, ".3g")
    return f"{shown}{NARROW}nats"


def duration(seconds: float) -> str:
    """A time in the unit that it is told in: ``40 s``, ``12 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def scatter(points: Sequence[Point], chosen: int) -> Markup:
    """The front: target refusal score across, benign divergence upwards, the chosen one ringed."""
    xs, ys = [point.target_refusal for point in points], [point.divergence for point in points]
    scaled, decades = divergence_scale(ys)
    x_low, x_high = padded(xs)
    y_low, y_high = padded([scaled(y) for y in ys])
    bottom, right = FRAME_HEIGHT - BOTTOM, FRAME_WIDTH - RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT),
            TOP + (1 - (y - y_low) / (y_high - y_low)) * (bottom - TOP),
        )

    parts = [f'<path class="axis" fill="none" d="M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}"/>']
    for tick in ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts += [mark(x, bottom + 18, signed(tick, "g")), grid_line(x, x, TOP, bottom)]
    for tick in decades or ticks(y_low, y_high):
        _, y = place(x_low, scaled(tick) if decades else tick)
        if TOP - 1 <= y <= bottom + 1:
            parts += [mark(LEFT - 8, y + 4.5, signed(tick, "g"), "end"), grid_line(LEFT, right, y, y)]
    for point in sorted(points, key=lambda point: point.trial):
        at = place(point.target_refusal, scaled(point.divergence))
        parts.append(dot(point, at, point.trial == chosen))
    parts.append(mark((LEFT + right) / 2, FRAME_HEIGHT - 10, "target refusal score, nats"))
    parts.append(
        f'<text text-anchor="middle" transform="translate(14 {(TOP + bottom) / 2:g}) rotate(-90)">'
        "benign divergence, nats</text>"
    )
    alternative = (
        f"{len(points)} members of the Pareto front; target refusal score from {min(xs):.2f} to "
        f"{max(xs):.2f} nats, benign divergence from {min(ys):.3g} to {max(ys):.3g} nats; trial "
        f"{chosen} was chosen. The table gives every member."
    )
    return picture(FRAME_WIDTH, FRAME_HEIGHT, alternative, "".join(parts))


def dot(point: Point, at: tuple[float, float], chosen: bool) -> str:
    """One member of the front; the chosen one is filled, ringed and named."""
    x, y = at
    side = "after" if chosen else "before"
    title = f"<title>trial {point.trial} {escape(point.label)}</title>"
    drawn = f'<circle class="{side} dot" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>'
    if not chosen:
        return drawn
    anchor, shift = ("end", -13) if x > FRAME_WIDTH / 2 else ("start", 13)
    name = mark(x + shift, y - 9, f"trial {point.trial}, chosen", anchor, "strong")
    return f'{drawn}<circle class="halo" cx="{x:.1f}" cy="{y:.1f}" r="9"/>{name}'


def heat_map(values: Sequence[Sequence[float]], rows: Sequence[str] = ()) -> Markup:
    """A value for every site, across, and position, downwards: the larger, the darker.

    With ``rows`` these are named, and hold something else of every site than its positions.
    """
    spots = [(abs(value), site, place) for site, row in enumerate(values) for place, value in enumerate(row)]
    largest, at_site, at_place = max(spots, key=lambda spot: spot[0])
    positions, height = len(values[0]), 26.0
    left = LEFT if not rows else 16 + 6.2 * max(map(len, rows))
    width, bottom = (FRAME_WIDTH - left - RIGHT) / len(values), TOP + positions * height
    parts = []
    for size, site, place in spots:
        x, y = left + site * width, TOP + place * height
        parts.append(
            f'<rect class="heat" x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
            f'height="{height - 1:g}" fill-opacity="{size / (largest or 1.0):.2f}"/>'
        )
        if width >= 26:
            text = signed(values[site][place], ".2f" if rows else ".1f")
            parts.append(mark(x + width / 2, y + height / 2 + 4.5, text, style="on-heat"))
    for site in range(0, len(values), max(1, len(values) // 12)):
        parts.append(mark(left + (site + 0.5) * width, bottom + 18, str(site)))
    for place in range(positions):
        name = rows[place] if rows else signed(float(place - positions), ".0f")
        parts.append(mark(left - 8, TOP + (place + 0.5) * height + 4.5, name, "end"))
    parts.append(mark((left + FRAME_WIDTH - RIGHT) / 2, bottom + 40, "site"))
    alternative = (
        f"{len(values)} sites by {positions} positions; the largest value is {largest or 1.0:.1f}, "
        f"at site {at_site}, position {signed(float(at_place - positions), '.0f')}"
    )
    if rows:
        ranges = [(min(each), max(each)) for each in zip(*values, strict=True)]
        told = (f"{name} from {a:.2f} to {b:.2f}" for name, (a, b) in zip(rows, ranges, strict=True))
        alternative = f"{len(values)} sites: {', '.join(told)}"
    return picture(FRAME_WIDTH, bottom + 48, alternative, "".join(parts))


def divergence_scale(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """How divergences are scaled, and the marks of a logarithmic axis (none for a linear one)."""
    smallest, largest = min(values), max(values)
    if smallest <= 0 or largest / smallest < DECADES:
        return (lambda value: value), []
    exponents = range(floor(log10(smallest)) - 1, floor(log10(largest)) + 2)
    return log10, [10.0**exponent for exponent in exponents]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """A range a little wider than the values, never empty."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or max(0.1, abs(high) * 0.1)
    return low - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers inside a range."""
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough)
    first = floor(low / step) + 1
    return [round(step * place, 12) for place in range(first, floor(high / step) + 1)]


def grid_line(x1: float, x2: float, y1: float, y2: float) -> str:
    """One line of the grid."""
    return f'<line class="track" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def mark(x: float, y: float, text: str, anchor: str = "middle", style: str = "") -> str:
    """One text in a plot."""
    name = f' class="{style}"' if style else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def picture(width: float, height: float, alternative: str, inside: str, fixed: bool = False) -> Markup:
    """An SVG image with its text alternative; ``fixed`` ones are as wide as said, at most."""
    text = escape(alternative)
    size = f' width="{width:g}" height="{height:g}"' if fixed else ' width="100%"'
    return Markup(
        f'<svg{size} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{text}">'
        f"<title>{text}</title>{inside}</svg>"
    )
