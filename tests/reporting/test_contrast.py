"""Contrast of every pair of colours that meet on a page, in light, dark and print."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

Colour = tuple[float, float, float]


def channels(text: str) -> Colour:
    digits = text.lstrip("#")
    digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """The relative luminance of WCAG 2.2."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of WCAG 2.2, from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def over(front: Colour, back: Colour, opacity: float) -> Colour:
    red, green, blue = (opacity * f + (1 - opacity) * b for f, b in zip(front, back, strict=True))
    return red, green, blue


def style() -> str:
    return files("palette.reporting").joinpath("templates", "page.css").read_text(encoding="utf-8")


def themes() -> dict[str, dict[str, Colour]]:
    blocks = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    found = [{n: channels(c) for n, c in re.findall(r"--([\w-]+): (#\w+)", block)} for block in blocks]
    return dict(zip(("light", "dark", "print"), found, strict=True))


def test_the_formula_gives_the_standard_s_own_values() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(channels("#777777"), channels("#fff")) == pytest.approx(4.48, abs=0.01)
    assert contrast(channels("#767676"), channels("#fff")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_contrast_meets_aa(name: str) -> None:
    """WCAG 2.2, criteria 1.4.3 and 1.4.11: 4.5 for text, 3 for the marks of a drawing."""
    theme = themes()[name]
    grounds = [theme["paper"], theme["sheet"]]
    for text in ("ink", "soft", "after"):
        assert min(contrast(theme[text], ground) for ground in grounds) >= 4.5
    for wash in ("pass", "fail"):
        for ground in (*grounds, theme[f"{wash}-wash"]):
            assert contrast(theme[wash], ground) >= 4.5
            assert contrast(theme["ink"], ground) >= 4.5
    for marks in ("before", "after", "ink"):
        assert min(contrast(theme[marks], ground) for ground in grounds) >= 3
    for step in range(101):
        cell = over(theme["heat"], theme["paper"], step / 100)
        assert contrast(theme["ink"], cell) >= 4.5


def test_every_colour_is_a_property_and_no_text_is_faded() -> None:
    rules = re.sub(r":root \{.*?\}", "", style(), flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)
    assert "opacity" not in rules
    assert {"light", "dark", "print"} == set(themes())
    assert len({tuple(sorted(theme)) for theme in themes().values()}) == 1
