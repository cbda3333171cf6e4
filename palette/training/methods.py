"""The internalisation methods by name; each takes a task and gives an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palette.training.activation import activation, palette
from palette.training.closed_form import closed_form
from palette.training.distillation import distil
from palette.training.task import Learned, Task

METHODS: Mapping[str, Callable[[Task], Learned]] = {
    "distil": distil,
    "palette": palette,
    "activation": activation,
    "closed_form": closed_form,
}
