"""The internalisation methods by name; each takes a task and gives an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palette.internalise.closed_form import closed_form
from palette.internalise.distillation import distil
from palette.internalise.one_block import activation, palette
from palette.internalise.task import Learned, Task

METHODS: Mapping[str, Callable[[Task], Learned]] = {
    "distil": distil,
    "palette": palette,
    "activation": activation,
    "closed_form": closed_form,
}
