"""What a folder's stored tensors become in the model that is loaded from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)
from transformers.pytorch_utils import Conv1D

from palette.shapes import Int, Tensor


@dataclass(frozen=True, eq=False)
class Composed:
    """A parameter of the loaded model that the library makes of several stored tensors."""

    name: str
    converter: Any
    sources: dict[str, list[str]]
    """The stored tensors by the library's pattern for their names, in its order: of experts, one each."""

    def numbered(self, shapes: Sequence[tuple[int, ...]]) -> Int[Tensor, "..."]:
        """The parameter where one tensor of each source holds the numbers from 0 on, source after source.

        Raises:
            ValueError: if the library makes more of them than one tensor.
        """
        converter, start = deepcopy(self.converter), 0
        for (pattern, keys), shape in zip(self.sources.items(), shapes, strict=True):
            stop = start + math.prod(shape)
            converter.add_tensor(self.name, keys[0], pattern, torch.arange(start, stop).reshape(shape))
            start = stop
        (made,) = converter.convert(self.name).values()
        whole: Tensor = made[0] if isinstance(made, list) else made
        return whole


def loaded_names(model: Any | None, stored: Iterable[str]) -> tuple[dict[str, str], dict[str, Composed]]:
    """What stored tensors become in the model of their folder, which may be empty; nothing where it is None.

    That is the name of each one that is a parameter as it is: models that see were saved with other names
    than they have now. And, by name, the parameters that are made of several, as fused experts are.
    """
    plain: dict[str, str] = {}
    composed: dict[str, Composed] = {}
    for key, name, rule, pattern in _renamed(model, stored):
        if rule is None:
            plain[key] = name
        else:
            composed.setdefault(name, Composed(name, rule, {})).sources.setdefault(pattern, []).append(key)
    return plain, composed


def _renamed(
    model: Any | None, stored: Iterable[str]
) -> Iterator[tuple[str, str, WeightConverter | None, str]]:
    """Each stored tensor in the library's order, its parameter, and the rule and pattern that convert it."""
    if model is None:
        return
    rules = get_model_conversion_mapping(model)
    renaming = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converting = [rule for rule in rules if isinstance(rule, WeightConverter)]
    of_pattern = {pattern: rule for rule in converting for pattern in rule.source_patterns}
    state = model.state_dict()
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(key, renaming, converting, model.base_model_prefix, state)
        if name in state:
            yield key, name, None if pattern is None else of_pattern[pattern], pattern or ""


def transposed_modules(model: Any | None) -> frozenset[str]:
    """The paths of the modules whose weights are [d_in, d_out]: Conv1D, and experts that say so."""
    modules = model.named_modules() if model is not None else ()
    return frozenset(
        name
        for name, module in modules
        if isinstance(module, Conv1D) or getattr(module, "is_transposed", False)
    )


def tied_modules(model: Any | None) -> frozenset[str]:
    """The paths of the modules that share a weight with another, as a head and an embedding that are tied."""
    tied = model.all_tied_weights_keys.items() if model is not None else ()
    return frozenset(name.removesuffix(".weight") for pair in tied for name in pair)
