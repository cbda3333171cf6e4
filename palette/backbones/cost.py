"""What a pass takes on a usual machine, known from a model's size: what it is worth follows from it.

Operations are counted and the time is nominal, so that a recipe does the same wherever it is run.
"""

from __future__ import annotations

from palette.backbones.backbone import Backbone

USUAL = {"cpu": 2e11, "cuda": 5e13}
"""Operations a second of a usual machine by the kind of its device; of another kind, as the first."""


def pass_seconds(backbone: Backbone, kind: str | None = None) -> float:
    """The seconds that a token of one forward pass takes on a usual machine: two operations a weight.

    ``kind`` is that of the device it is to run on, if it is not there yet.
    """
    weights = sum(each.numel() for each in backbone.model.parameters())
    return 2 * weights / USUAL.get(kind or backbone.model.device.type, USUAL["cpu"])
