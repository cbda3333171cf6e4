"""What a pass takes on a usual machine, known from a model's size: what it is worth follows from it.

Operations are counted and the time is nominal, so that a recipe does the same wherever it is run.
"""

from __future__ import annotations

from palette.backbones.backbone import Backbone
from palette.backbones.placement import numbers_in

USUAL = {"cpu": 2e11, "cuda": 5e13}
"""Operations a second of a usual machine by the kind of its device; of another kind, as the first."""
HALVES = {"cpu": 1.6}
"""How many times as many in half precision, which a device is given where it has units for it: over passes
(three times), replies (twice to three times) and training (1.6), what a real chat model gained at least."""


def pass_seconds(backbone: Backbone, kind: str | None = None) -> float:
    """The seconds that a token of one forward pass takes on a usual machine: two operations a weight.

    ``kind`` is that of the device it is to run on, if it is not there yet.
    """
    weights = sum(numbers_in(each) for each in backbone.model.parameters())
    kind = kind or backbone.model.device.type
    faster = HALVES.get(kind, 1.0) if backbone.model.dtype.itemsize == 2 else 1.0
    return 2 * weights / (USUAL.get(kind, USUAL["cpu"]) * faster)
