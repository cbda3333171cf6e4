"""The reproduce and unmerge verbs: what the header of a merge allows, to make it again or take it apart."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import adapter_paths, open_adapter
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import WEIGHTS, adapter_writer
from palette.errors import AdapterError
from palette.files import claim, read_json, require_free
from palette.merging.combining import MergePlan
from palette.merging.inputs import MergeInput, short_name
from palette.merging.writing import RECORD, VERSIONS, write
from palette.processes import Progress, silent


def reproduce(
    path: Path | str,
    sources: Sequence[Path | str] = (),
    output: Path | str | None = None,
    backbone: Path | str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Says that the merge at ``path``, made again, has the same bytes; ``output`` keeps the copy.

    Its adapters are looked for among ``sources``, and where ``merge.json`` says that they lay.

    Raises:
        AdapterError: if it is no merge, an adapter of it is not found, or other bytes come out.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    path = Path(path)
    weights, _ = adapter_paths(path)
    merged = open_adapter(path)
    card = merged.card
    known = found_inputs(merged, weights, [*map(Path, sources)], Path(backbone) if backbone else None)
    inputs = [
        replace(
            known[member["digest"]], weight=float(member["weight"]), globs=tuple(member.get("modules", ()))
        )
        for member in card["parents"]
    ]
    kept = card.get("rank"), card.get("energy", 1.0), str(card.get("dtype", "float32"))
    plan = MergePlan(inputs, card["method"], card["options"], *kept, bool(card.get("same_backbone")))
    with TemporaryDirectory() as temporary:
        folder = Path(output or Path(temporary) / "again")
        write(plan, folder, progress)
        same = filecmp.cmp(weights, folder / WEIGHTS, shallow=False)
    if not same:
        made, wrote = (
            ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown versions"
            for versions in (VERSIONS, card.get("versions", {}))
        )
        raise AdapterError(
            "a merge that is made again must have the same bytes",
            got=f"others, made by {made}",
            remedy=f"make it with {wrote}, which wrote it",
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


def unmerge(
    path: Path | str, member: str, output: Path | str | None = None, *, rest: bool = False
) -> dict[str, Any]:
    """What was taken out of the merge at ``path``, and where it was written.

    An exact sum holds the components of its adapters side by side, w·scale·B and A; those of one
    divided by its weight are that adapter (at weight 1, or any power of two, to the last bit). With
    ``rest`` the sum of all the others is written instead. ``member`` is a domain or the start of a
    digest.

    Raises:
        AdapterError: if it is no exact sum, or has no such member.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    path = Path(path)
    weights, _ = adapter_paths(path)
    merged = open_adapter(path)
    index = member_of(merged, member, weights)
    members = merged.card["parents"]
    chosen = [i for i in range(len(members)) if (i != index) == rest]
    domains = sorted({domain for i in chosen for domain in members[i]["domains"]})
    card = {"domains": domains, "unmerged_from": merged.digest}
    if rest:
        card["parents"] = [members[i] for i in chosen]
    output = Path(output or Path("runs") / short_name(Path(member), [*domains, "unmerged"]))
    owner = {"stage": "unmerge", "merge": merged.digest, "member": members[index]["digest"], "rest": rest}
    require_free(output, owner)
    with adapter_writer(output, merged.backbone, sources=[merged]) as writer:
        for name in sorted(merged.modules):
            module = part(merged, name, chosen, 1.0 if rest else float(members[index]["weight"]))
            if module.rank:
                writer.add(name, module)
        claim(output, owner)
        rank = writer.finish(card)
    return {
        "output": str(output),
        "digest": writer.digest,
        "member": members[index],
        "rest": rest,
        "same_as_merged": not rest and writer.digest == members[index]["digest"],
        "domains": domains,
        "written_rank": rank,
    }


def member_of(merged: Adapter, member: str, where: Path) -> int:
    """The place of a member in an exact sum.

    Raises:
        AdapterError: if the adapter is no exact sum, or not exactly one member is meant.
    """
    if not merged.card.get("components"):
        cut = merged.card.get("method") != "weighted_sum" or {"rank", "energy"} & merged.card.keys()
        raise AdapterError(
            "only an exact sum can be taken apart",
            got="an adapter whose header does not say which components are whose",
            # Members that share directions are mixed in an exact sum too.
            remedy="merge with weighted_sum and no --rank or --energy" if cut else "merge the others again",
            where=where,
        )
    members = merged.card["parents"]
    meant = [
        index
        for index, known in enumerate(members)
        if member in known["domains"] or (len(member) >= 6 and known["digest"].startswith(member))
    ]
    if len(meant) != 1:
        names = "; ".join(f"{', '.join(one['domains'])} {one['digest'][:12]}".strip() for one in members)
        raise AdapterError(
            "one adapter of the merge must be meant",
            got=f"{member!r}, which names {len(meant)} of them",
            remedy=f"name a domain or a digest of {names}",
            where=where,
        )
    if not members[meant[0]]["weight"]:
        raise AdapterError("what was merged at weight 0 is not in the sum", got=member, where=where)
    return meant[0]


def part(merged: Adapter, name: str, chosen: list[int], weight: float) -> LoraModule:
    """The components of the chosen members in one module, divided by a weight.

    Raises:
        AdapterError: if the module does not have the components that the header says.
    """
    stated = merged.card["components"]
    counts = stated if isinstance(stated, list) else stated[name]
    module = merged.modules[name].trimmed()
    if module.rank != sum(counts):
        raise AdapterError(
            "an exact sum must have the components of its parts",
            got=f"{module.rank} for {sum(counts)} in {name}",
            remedy="merge the adapters again",
        )
    starts = [sum(counts[:i]) for i in range(len(counts))]
    rows = [row for i in chosen for row in range(starts[i], starts[i] + counts[i])]
    return LoraModule(module.lora_A[rows], module.lora_B[:, rows], module.scale / weight)
