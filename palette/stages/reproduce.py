"""The reproduce verb: a merge is made again from what its header says, and compared byte by byte."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import adapter_paths, open_adapter
from palette.adapters.lora import Adapter
from palette.adapters.writing import WEIGHTS
from palette.errors import AdapterError
from palette.files import read_json
from palette.merging.combining import MergePlan
from palette.merging.inputs import MergeInput
from palette.merging.writing import RECORD, VERSIONS, write
from palette.processes import Progress, silent


def reproduce(
    path: Path,
    sources: Sequence[Path] = (),
    output: Path | None = None,
    backbone: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Says that the merge at ``path``, made again, has the same bytes; ``output`` keeps the copy.

    Its adapters are looked for among ``sources``, and where ``merge.json`` says that they lay.

    Raises:
        AdapterError: if it is no merge, an adapter of it is not found, or other bytes come out.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    weights, _ = adapter_paths(path)
    merged = open_adapter(path)
    plan = plan_of(merged, found_inputs(merged, weights, sources, backbone))
    with kept(output) as folder:
        write(plan, folder, str(merged.card.get("dtype", "float32")), progress)
        same = same_bytes(weights, folder / WEIGHTS)
    if not same:
        raise AdapterError(
            "a merge that is made again must have the same bytes",
            got=f"others, made by {described(VERSIONS)}",
            remedy=f"make it with {described(merged.card.get('versions', {}))}, which wrote it",
            where=weights,
        )
    return {
        "file": str(weights),
        "digest": merged.digest,
        "reproduced": True,
        "output": None if output is None else str(output),
        "parents": [member.label for member in plan.ordered],
    }


def found_inputs(
    merged: Adapter, weights: Path, sources: Sequence[Path], backbone: Path | None
) -> dict[str, MergeInput]:
    """The adapters of a merge by their digests; ``backbone`` is the folder that DoRA needs.

    Raises:
        AdapterError: if the file is no merge, or one of its adapters is not found.
    """
    members = merged.card.get("parents")
    if not isinstance(members, list) or "method" not in merged.card:
        raise AdapterError(
            "only a merge can be reproduced",
            got="an adapter whose header has no recipe of a merge",
            where=weights,
        )
    record = weights.with_name(RECORD)
    lay: Mapping[str, str] = read_json(record).get("paths", {}) if record.is_file() else {}
    known: dict[str, MergeInput] = {}
    weight_of = BackboneWeights(backbone) if backbone else None
    for source in [*sources, *(Path(os.path.normpath(weights.parent / place)) for place in lay.values())]:
        if source.exists():
            adapter = open_adapter(source, weight_of)
            known.setdefault(adapter.digest, MergeInput(adapter, label=str(source)))
    for digest in (member["digest"] for member in members):
        if digest not in known:
            where = lay.get(digest, "a place that is not recorded")
            raise AdapterError(
                "every adapter of a merge must be at hand to make it again",
                got=f"none of digest {digest[:12]}, once in {where}",
                remedy="name its folder with --from",
                where=weights,
            )
    return known


def plan_of(merged: Adapter, known: Mapping[str, MergeInput]) -> MergePlan:
    """The plan by which the merge was made."""
    card = merged.card
    inputs = [
        replace(
            known[member["digest"]],
            weight=float(member["weight"]),
            globs=tuple(member.get("modules", ())),
        )
        for member in card["parents"]
    ]
    return MergePlan(inputs, card["method"], card["options"], card.get("rank"), card.get("energy", 1.0))


@contextmanager
def kept(output: Path | None) -> Iterator[Path]:
    """The output folder, or one that is gone afterwards."""
    if output is not None:
        yield output
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / "again"


def same_bytes(one: Path, other: Path, block: int = 1 << 20) -> bool:
    """Whether two files hold the same."""
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            left, right = first.read(block), second.read(block)
            if left != right:
                return False
            if not left:
                return True


def described(versions: Mapping[str, Any]) -> str:
    """Versions as words."""
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown versions"
