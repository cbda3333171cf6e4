"""The adapters of a merge: read, weighed, told apart, and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import open_adapter
from palette.adapters.header import StoredTensors, read_header
from palette.adapters.lora import Adapter
from palette.errors import AdapterError, RecipeError
from palette.merging.plan import MergeInput

LONGEST_NAME = 120


@dataclass(frozen=True)
class Parent:
    """One adapter of a merge as it was asked for: where it lies, its weight, and which modules."""

    path: Path
    weight: float = 1.0
    only: tuple[str, ...] = ()
    moments: Path | None = None
    """A safetensors file of second moments [d_in, d_in] by module path, for methods that ask."""


def weighted(paths: Sequence[Path], weights: Sequence[float] | None) -> list[Parent]:
    """The adapters at the paths, each with its weight, by default 1.

    Raises:
        RecipeError: if there are no adapters, or another number of weights.
    """
    if not paths:
        raise RecipeError("a merge must have at least one adapter", got="none")
    if weights is None:
        return [Parent(path) for path in paths]
    if len(weights) != len(paths):
        raise RecipeError(
            "a merge must have one weight for each adapter",
            got=f"{len(weights)} for {len(paths)}",
            where="merge.weights",
        )
    return [Parent(path, weight) for path, weight in zip(paths, weights, strict=True)]


def read_parents(parents: Sequence[Parent], weights: BackboneWeights | None = None) -> list[MergeInput]:
    """The adapters themselves, in the order given; their modules are read when they are asked for.

    An adapter given twice is refused, since that would double its weight silently, unless each takes
    modules of its own. ``weights`` are the backbone's, which only DoRA needs.

    Raises:
        AdapterError: if one cannot be read, one is given twice, or a filter takes no module.
    """
    inputs = [
        MergeInput(
            open_adapter(one.path, weights),
            one.weight,
            str(one.path),
            one.only,
            StoredTensors(read_header(one.moments)) if one.moments else None,
        )
        for one in parents
    ]
    taken: dict[tuple[str, str], MergeInput] = {}
    for one in inputs:
        if not one.names:
            raise AdapterError(
                "a filter must take at least one module",
                got=", ".join(one.only),
                remedy="write globs of module paths, such as *.self_attn.*",
                where=one.label,
            )
        for name in sorted(one.names):
            first = taken.setdefault((one.adapter.digest, name), one)
            if first is not one:
                raise AdapterError(
                    "an adapter may be given once",
                    got=f"the same one as {first.label}",
                    remedy="to strengthen it, give it a weight",
                    where=one.label,
                )
    return inputs


def default_output(paths: Sequence[Path], adapters: Sequence[Adapter]) -> Path:
    """The folder ``runs/<a>+<b>``, by the adapters' domains if known, else by their files' names.

    The order of the adapters does not matter. A single adapter goes to ``runs/merged-<a>``, since
    ``runs/<a>`` is where its recipe left it.
    """
    labels = sorted(label(path, one.domains) for path, one in zip(paths, adapters, strict=True))
    name = "+".join(labels) if len(labels) > 1 else f"merged-{labels[0]}"
    return Path("runs") / name[:LONGEST_NAME]


def label(path: Path, domains: Sequence[str]) -> str:
    """A short name for an adapter, safe in a file name."""
    if domains:
        name = "+".join(domains)
    elif path.is_dir() or path.stem == "adapter_model":
        name = (path if path.is_dir() else path.parent).resolve().name
    else:
        name = path.stem
    return re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII).lstrip(".") or "adapter"
