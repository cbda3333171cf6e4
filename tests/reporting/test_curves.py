"""The picture of training: valid, alone, and of what was measured."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from palette.reporting.curves import curves

SVG = "{http://www.w3.org/2000/svg}"
LOSSES = st.lists(st.floats(1e-6, 1e4), max_size=30)


@given(st.dictionaries(st.text(max_size=6), LOSSES, max_size=3))
def test_every_training_has_a_line_inside_the_frame_with_a_place_for_each_step(losses):
    losses = {"".join(c for c in name if c.isprintable()) or "x": each for name, each in losses.items()}
    root = ElementTree.fromstring(str(curves(losses)))
    lines = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    assert sorted(map(len, lines)) == sorted(len(each) for each in losses.values() if each)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in lines:
        places = [tuple(map(float, point.split(","))) for point in line]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
        assert [x for x, _ in places] == sorted(x for x, _ in places)


def test_a_falling_loss_falls_and_is_told_in_words():
    root = ElementTree.fromstring(str(curves({"first": [4.0, 2.0, 1.0], "second": []})))
    (line,) = root.iter(f"{SVG}polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights), "downwards on a screen"
    assert root.attrib["aria-label"] == "The loss of training: first from 4 to 1 nats in 3 steps."
