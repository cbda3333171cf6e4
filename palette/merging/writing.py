"""A merge written: as an adapter with the record of how it was made, or into a backbone's weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import BaseModel

from palette.adapters.backbone_weights import BackboneWeights, Place
from palette.adapters.header import DTYPES, Header, header_of, read_stored
from palette.adapters.lora import LoraModule
from palette.adapters.writing import STORED, adapter_writer, bits, served_rank
from palette.errors import AdapterError, RecipeError
from palette.files import atomic, claim, read_json, require_free, stated_in, write_json
from palette.merging.combining import MergePlan, Retention, merged_modules, single_threaded
from palette.merging.inputs import Group, default_output, open_inputs
from palette.merging.methods import OptionValue
from palette.merging.settings import MergeSettings
from palette.merging.tiles import Tiled, task_vector, tiled
from palette.models import is_weights
from palette.processes import Advance, Progress, silent, unheard
from palette.working import working

RECORD = "merge.json"
MERGE_FORMAT = "palette-merge/1"
VERSIONS = {"palette": version("palette-llm"), "torch": torch.__version__}
BLOCK = 1 << 24
"""Bytes copied at a time."""
INDEX = ".safetensors.index.json"


class MergeReport(BaseModel, frozen=True):
    """What was merged, where it was written, what it kept, and the gate's verdict on it."""

    output: str
    digest: str
    method: str
    options: dict[str, OptionValue]
    inputs: list[dict[str, Any]]
    weights: list[float]
    domains: list[str]
    backbone: dict[str, str | None]
    rank: int
    written_rank: int
    dtype: str
    retained_energy: float
    """The share in [0, 1] of the energy that the rank keeps."""
    worst_module: dict[str, str | float]
    gate: dict[str, Any] | None = None
    gate_not_run: str = ""
    """Why there is no verdict."""
    report: str = ""
    """Where the report of the verdict lies."""

    def to_json(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return self.model_dump(mode="json", exclude_unset=True)


def merge_adapters(
    settings: MergeSettings, output: Path | None = None, progress: Progress = silent
) -> MergeReport:
    """What was merged and written, to ``output`` or a folder named after the domains, without a verdict.

    The same merge, in whatever order its adapters are given, writes the same bytes. How to make it
    again stands in the header of the weights and in ``merge.json`` beside them.

    Raises:
        RecipeError: if the settings do not fit the adapters or the method.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    plan = planned(settings, BackboneWeights(settings.backbone) if settings.backbone else None)
    folder = output or default_output(plan.inputs)
    require_free(folder, {"stage": "merge", **plan.recipe()})
    with working(folder):
        retention, digest, rank = write(plan, folder, progress)
        lay = {member.adapter.digest: os.path.relpath(member.label, folder) for member in plan.inputs}
        record = {
            "format": MERGE_FORMAT,
            **plan.recipe(),
            "versions": VERSIONS,
            "paths": {digest: Path(lay[digest]).as_posix() for digest in sorted(lay)},
        }
        write_json(folder / RECORD, record)
    return MergeReport(
        output=str(folder),
        digest=digest,
        method=plan.method,
        options=plan.settled,
        inputs=[{"path": member.label, **member.identity} for member in plan.inputs],
        weights=[member.weight for member in plan.inputs],
        domains=plan.domains,
        backbone={"name": plan.backbone.name, "fingerprint": plan.backbone.fingerprint},
        rank=retention.rank,
        written_rank=rank,
        dtype=settings.dtype,
        retained_energy=retention.retained_energy,
        worst_module={"name": retention.worst_module, "retained_energy": retention.worst_retained_energy},
    )


def planned(settings: MergeSettings, weights: BackboneWeights | None = None) -> MergePlan:
    """The plan of a merge, its adapters opened; ``weights`` are the backbone's, which only DoRA needs.

    Raises:
        RecipeError: if the method does not take the options.
        AdapterError: if an adapter cannot be read, or they were made for different backbones.
    """
    inputs, options = open_inputs(settings.sources, weights), settings.method_options
    kept = settings.rank, settings.energy, settings.dtype
    plan = MergePlan(inputs, settings.method, options, *kept, settings.same_backbone)
    _ = plan.backbone, plan.ordered
    return plan


def write(plan: MergePlan, folder: Path, progress: Progress = silent) -> tuple[Retention, str, int]:
    """What the merge kept, its digest, and the rank at which it was written to ``folder``.

    Nothing is written there before the last module is merged.

    Raises:
        AdapterError: if the inputs do not fit each other, or no rank that is served holds the result.
        OutputError: if the folder belongs to something else, or cannot be written.
    """
    retention, dtype = Retention(), getattr(torch, plan.dtype)
    sources = [member.adapter for member in plan.inputs]
    with (
        progress("merge", len(plan.names)) as advance,
        adapter_writer(folder, plan.backbone, dtype, sources) as writer,
    ):
        for merged in merged_modules(plan, canonical=True):
            writer.add(merged.name, merged.truncation.module)
            retention.note(merged)
            served_rank(retention.rank)
            advance(1)
        claim(folder, {"stage": "merge", **plan.recipe()})
        card = {**plan.recipe(), **retention.parting(), "domains": plan.domains, "versions": VERSIONS}
        rank = writer.finish({**card, "retained_energy": retention.retained_energy})
    return retention, writer.digest, rank


def merge_into(
    settings: MergeSettings, backbone: Path, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What was written to ``output``: the backbone's local folder with the merge in its weights.

    W + ΔW is added in float32 and rounded once, to the type that W has or to the ``dtype`` that is
    set; ΔW is never cut to a rank. Every other tensor and file is the original's, byte for byte. Of
    another ``dtype`` every tensor in floating point is rounded to it, and the configuration and the
    index say so.

    Raises:
        RecipeError: if the settings do not fit the adapters, or no output folder is given.
        AdapterError: if an adapter cannot be read, or the folder is no model in safetensors that has
            every module.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    if output is None:
        law = "a merge into weights writes a whole model"
        raise RecipeError(law, got="no folder", remedy="give --output")
    if backbone.is_dir() and stated_in(backbone / "config.json").get("quantization_config"):
        raise AdapterError(
            "a merge goes into whole weights",
            got="a backbone in few bits",
            remedy="mount the adapter, or merge into the weights that these were made of",
            where=backbone,
        )
    weights = BackboneWeights(backbone)
    plan = planned(settings, weights)
    dtype = settings.dtype if "dtype" in settings.model_fields_set else None
    if plan.rank is not None or plan.share < 1:
        raise AdapterError("a merge into weights keeps all of ΔW", got="a rank or a share of its energy")
    merged, changed = plan.merger(), dict[str, dict[int, Callable[[], Tiled]]]()
    for name in plan.names:
        shape = next(member.module(name).shape for member in plan.ordered if name in member.names)
        for place in weights.places(name, shape):
            changed.setdefault(place.key, {})[place.expert] = partial(addend, merged, name, place)
    claim(output, {"stage": "fuse", "backbone": weights.folder.name, "dtype": dtype, **plan.recipe()})
    with single_threaded(), progress("fuse", sum(map(len, changed.values()))) as advance:
        for header in weights.shards:
            with atomic(output / header.path.name) as staged, staged.open("wb") as stream:
                write_shard(stream, header, changed, dtype, advance)
    shards = [header.path.name for header in weights.shards]
    copied = copy_others(weights.folder, output, set(shards), dtype)
    return {
        "output": str(output),
        "shards": shards,
        "changed": len(plan.names),
        "copied": copied,
        "dtype": dtype,
    }


def write_shard(
    stream: IO[bytes],
    header: Header,
    changed: Mapping[str, Mapping[int, Callable[[], Tiled]]],
    dtype: str | None,
    advance: Advance = unheard,
) -> None:
    """Writes a shard with its tensors in the order of the original.

    ``changed`` gives what is added, by tensor and by expert of its stack; a matrix is a stack of one.
    """
    ordered = sorted(header.entries, key=lambda name: header.entries[name].start)
    stored = {name: header.entries[name].dtype for name in ordered}
    if dtype is not None:
        asked = STORED[getattr(torch, dtype)]
        stored = {name: asked if own in DTYPES else own for name, own in stored.items()}
    if dtype is None:
        copy_range(header.path, stream, 0, header.entries[ordered[0]].start)
    else:
        tensors = {name: (stored[name], header.entries[name].shape) for name in ordered}
        stream.write(header_of(tensors, header.metadata))
    for name in ordered:
        entry = header.entries[name]
        if name in changed:
            weight = read_stored(header, [name])[0]
            for expert, matrix in enumerate(weight if weight.dim() == 3 else weight[None]):
                delta = changed[name].get(expert)
                if delta is None:
                    stream.write(bits(matrix.to(DTYPES[stored[name]])).numpy().data)
                    continue
                advance(1)
                for rows, tile in delta().tiles():
                    added = matrix[rows].float() + tile.float()
                    stream.write(bits(added.to(DTYPES[stored[name]])).numpy().data)
        elif stored[name] != entry.dtype:
            stream.write(bits(read_stored(header, [name])[0].to(DTYPES[stored[name]])).numpy().data)
        else:
            copy_range(header.path, stream, entry.start, entry.end)


def addend(merged: Callable[[str], tuple[Group, LoraModule | Tiled]], name: str, place: Place) -> Tiled:
    """What is added at one place of a module's weight."""
    _, result = merged(name)
    delta = task_vector(result) if isinstance(result, LoraModule) else result
    return delta if place.plain else tiled(place.part(delta.dense()))


def copy_range(source: Path, stream: IO[bytes], start: int, end: int) -> None:
    """Copies these bytes of a file as they are."""
    with source.open("rb") as original:
        original.seek(start)
        left = end - start
        while left:
            left -= stream.write(original.read(min(left, BLOCK)))


def copy_others(backbone: Path, output: Path, shards: set[str], dtype: str | None) -> list[str]:
    """The names of the other files, each copied; the configuration names another type if there is one.

    Weights that are not among the shards, in other formats say, are left: without the merge they are stale.
    """
    files = [path.name for path in backbone.iterdir() if path.is_file()]
    listed = {name: read_json(backbone / name) for name in files if name.endswith(INDEX)}
    indices = {name for name, index in listed.items() if shards <= set(index.get("weight_map", {}).values())}
    copied = sorted(name for name in files if name in indices or not is_weights(name))
    for name in copied:
        with atomic(output / name) as staged:
            shutil.copyfile(backbone / name, staged)
    if dtype is None:
        return copied
    if "config.json" in copied:
        config = read_json(output / "config.json")
        write_json(output / "config.json", {**config, "dtype": dtype})
    written = [entry for header in BackboneWeights(output).shards for entry in header.entries.values()]
    for index in sorted(indices):
        content = read_json(output / index)
        total = sum(entry.end - entry.start for entry in written)
        content["metadata"] = {**content.get("metadata", {}), "total_size": total}
        write_json(output / index, content)
    return copied
