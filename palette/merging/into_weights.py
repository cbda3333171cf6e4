"""A merge into a backbone's weights: shard by shard, each changed number rounded once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.header import DTYPES, Entry, Header, read_stored
from palette.adapters.writing import STORED, bits
from palette.errors import AdapterError
from palette.files import atomic, claim, framed, read_json, write_json
from palette.fingerprints import canonical
from palette.merging.combining import merger
from palette.merging.merge import recipe_of
from palette.merging.plan import MergePlan
from palette.merging.tiles import Tiled, tiled
from palette.merging.workers import single_threaded
from palette.progress import Progress, silent
from palette.shapes import Float, Tensor

BLOCK = 1 << 24
"""Bytes copied at a time."""
INDEX = ".safetensors.index.json"


def fuse(
    plan: MergePlan, weights: BackboneWeights, output: Path, dtype: str | None, progress: Progress = silent
) -> dict[str, Any]:
    """What was written to ``output``: the backbone's folder with the merge in its weights.

    W + ΔW is added in float32 and rounded once, to the type that W has or to ``dtype``; ΔW is never
    cut to a rank. Every other tensor and file is the original's, byte for byte. Of another ``dtype``
    every tensor in floating point is rounded to it, and the configuration and the index say so.

    Raises:
        AdapterError: if the folder is no model in safetensors, or does not have every module.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    if plan.rank is not None or plan.share < 1:
        raise AdapterError("a merge into weights keeps all of ΔW", got="a rank or a share of its energy")
    names = sorted({name for one in plan.inputs for name in one.names})
    for name in names:
        weights.require(name, shape_of(plan, name))
    changed = {weights.key(name): name for name in names}
    owner = {"stage": "fuse", "backbone": weights.folder.name, "dtype": dtype, **recipe_of(plan, "float32")}
    claim(output, owner)
    shards = [header.path.name for header in weights.shards]
    merged = merger(plan)
    with single_threaded(), progress("fuse", len(names)) as advance:

        def delta_of(name: str) -> Tiled:
            advance(1)
            delta = tiled(merged(name)[1])
            return turned(delta) if weights.transposed(name) else delta

        for header in weights.shards:
            with atomic(output / header.path.name) as staged, staged.open("wb") as stream:
                write_shard(stream, header, changed, delta_of, dtype)
    copied = copy_others(weights.folder, output, set(shards), dtype)
    return {"output": str(output), "shards": shards, "changed": len(names), "copied": copied, "dtype": dtype}


def shape_of(plan: MergePlan, name: str) -> tuple[int, int]:
    """The shape of ΔW in one module."""
    return next(one.adapter.modules[name].shape for one in plan.inputs if name in one.names)


def write_shard(
    stream: IO[bytes],
    header: Header,
    changed: Mapping[str, str],
    delta_of: Callable[[str], Tiled],
    dtype: str | None,
) -> None:
    """Writes a shard with its tensors in the order of the original; ``changed`` are modules by tensor."""
    ordered = sorted(header.entries, key=lambda name: header.entries[name].start)
    stored = {name: stored_as(header.entries[name], dtype) for name in ordered}
    if dtype is None:
        copy_range(header.path, stream, 0, header.entries[ordered[0]].start)
    else:
        stream.write(header_like(header, ordered, stored))
    for name in ordered:
        entry = header.entries[name]
        if name in changed:
            weight = read_stored(header, [name])[0]
            for rows in added(weight, delta_of(changed[name])):
                stream.write(bits(rows.to(DTYPES[stored[name]])).numpy().data)
        elif stored[name] != entry.dtype:
            stream.write(bits(read_stored(header, [name])[0].to(DTYPES[stored[name]])).numpy().data)
        else:
            copy_range(header.path, stream, entry.start, entry.end)


def added(weight: Float[Tensor, "d_out d_in"], delta: Tiled) -> Iterator[Float[Tensor, "row d_in"]]:
    """W + ΔW in float32, some rows at a time."""
    for rows, tile in delta.tiles():
        yield weight[rows].float() + tile.float()


def turned(delta: Tiled) -> Tiled:
    """ΔW as [d_in, d_out], for a weight that lies so."""
    whole = delta.dense().T.contiguous()
    return Tiled((delta.shape[1], delta.shape[0]), delta.dtype, lambda start, stop: whole[start:stop].clone())


def copy_range(source: Path, stream: IO[bytes], start: int, end: int) -> None:
    """Copies these bytes of a file as they are."""
    with source.open("rb") as original:
        original.seek(start)
        left = end - start
        while left:
            left -= stream.write(original.read(min(left, BLOCK)))


def stored_as(entry: Entry, dtype: str | None) -> str:
    """The type in which a tensor is written: its own, or in floating point the one asked for."""
    return entry.dtype if dtype is None or entry.dtype not in DTYPES else STORED[getattr(torch, dtype)]


def header_like(header: Header, ordered: list[str], stored: Mapping[str, str]) -> bytes:
    """The header of a shard with the same tensors in the same order, of other types."""
    start = 0
    entries: dict[str, Any] = {"__metadata__": dict(header.metadata)} if header.metadata else {}
    for name in ordered:
        entry = header.entries[name]
        size = entry.end - entry.start
        if stored[name] != entry.dtype:
            size = size * DTYPES[stored[name]].itemsize // DTYPES[entry.dtype].itemsize
        shape = list(entry.shape)
        entries[name] = {"dtype": stored[name], "shape": shape, "data_offsets": [start, start + size]}
        start += size
    return framed(canonical(entries).encode())


def copy_others(backbone: Path, output: Path, shards: set[str], dtype: str | None) -> list[str]:
    """The names of the other files, each copied; the configuration names another type if there is one."""
    copied = []
    for path in sorted(backbone.iterdir()):
        if not path.is_file() or path.name in shards:
            continue
        copied.append(path.name)
        with atomic(output / path.name) as staged:
            shutil.copyfile(path, staged)
    if dtype is not None and "config.json" in copied:
        config = read_json(output / "config.json")
        write_json(output / "config.json", {**config, "dtype": dtype})
    for index in (name for name in copied if dtype is not None and name.endswith(INDEX)):
        content = read_json(output / index)
        total = sum(
            entry.end - entry.start
            for header in BackboneWeights(output).shards
            for entry in header.entries.values()
        )
        content["metadata"] = {**content.get("metadata", {}), "total_size": total}
        write_json(output / index, content)
    return copied
