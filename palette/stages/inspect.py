"""The inspect verb: what adapter files hold, and how far their deltas interfere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palette.adapters.factorisation import overlap
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, cosine, norm
from palette.errors import RecipeError


def inspect(paths: Sequence[Path]) -> dict[str, Any]:
    """What each adapter is, and for several how much their ΔW interfere.

    That is the cosines in [-1, 1] between them, what one repeats or undoes of the other; and the
    overlaps in [0, 1] of what they read, 0 where no input moves both. Both are null for two adapters
    that were made for different backbones, since their deltas live in different spaces.

    Raises:
        RecipeError: if no adapter is given.
        AdapterError: if an adapter cannot be read.
    """
    if not paths:
        raise RecipeError("inspect must have at least one adapter", got="none")
    adapters = [read_adapter(path) for path in paths]
    result: dict[str, Any] = {
        "adapters": [describe(path, adapter) for path, adapter in zip(paths, adapters, strict=True)]
    }
    if len(adapters) > 1:
        measures = {"cosines": cosine, "overlaps": overlap}
        for name, measure in measures.items():
            result[name] = [
                [measure(one, other) if comparable(one, other) else None for other in adapters]
                for one in adapters
            ]
    return result


def comparable(one: Adapter, other: Adapter) -> bool:
    """Whether two adapters were made for one backbone, as far as they say."""
    shared = set(one.modules) & set(other.modules)
    fits = all(one.modules[name].shape == other.modules[name].shape for name in shared)
    return fits and one.backbone.agrees(other.backbone)


def describe(path: Path, adapter: Adapter) -> dict[str, Any]:
    """One adapter as JSON; a norm is the Frobenius norm of ΔW."""
    modules = {name: adapter.modules[name] for name in sorted(adapter.modules)}
    return {
        "path": str(path),
        "digest": adapter.digest,
        "backbone": {
            "name": adapter.backbone.name,
            "fingerprint": adapter.backbone.fingerprint,
        },
        "domains": list(adapter.domains),
        "targets": sorted({name.rpartition(".")[2] for name in modules}),
        "rank": adapter.rank,
        "scales": sorted({module.scale for module in modules.values()}),
        "norm": norm(adapter),
        "modules": {
            name: {
                "shape": list(module.shape),
                "rank": module.rank,
                "effective_rank": module.trimmed().rank,
                "scale": module.scale,
                "norm": module.norm(),
            }
            for name, module in modules.items()
        },
        "card": dict(adapter.card),
    }
