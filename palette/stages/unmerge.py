"""The unmerge verb: an exact sum gives one of its adapters back, or goes on without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.adapters.files import adapter_paths, open_adapter
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.writing import adapter_writer
from palette.errors import AdapterError
from palette.files import claim, require_free
from palette.merging.inputs import short_name


def unmerge(path: Path, member: str, output: Path | None = None, *, rest: bool = False) -> dict[str, Any]:
    """What was taken out of the merge at ``path``, and where it was written.

    An exact sum holds the components of its adapters side by side, w·scale·B and A; those of one
    divided by its weight are that adapter (at weight 1, or any power of two, to the last bit). With
    ``rest`` the sum of all the others is written instead. ``member`` is a domain or the start of a
    digest.

    Raises:
        AdapterError: if it is no exact sum, or has no such member.
        OutputError: if the output folder belongs to something else, or cannot be written.
    """
    weights, _ = adapter_paths(path)
    merged = open_adapter(path)
    index = member_of(merged, member, weights)
    members = merged.card["parents"]
    chosen = [i for i in range(len(members)) if (i != index) == rest]
    domains = sorted({domain for i in chosen for domain in members[i]["domains"]})
    card = {"domains": domains, "unmerged_from": merged.digest}
    if rest:
        card["parents"] = [members[i] for i in chosen]
    output = output or Path("runs") / short_name(Path(member), [*domains, "unmerged"])
    owner = {"stage": "unmerge", "merge": merged.digest, "member": members[index]["digest"], "rest": rest}
    require_free(output, owner)
    with adapter_writer(output, merged.backbone) as writer:
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
        raise AdapterError(
            "only an exact sum can be taken apart",
            got="an adapter whose header does not say which components are whose",
            remedy="merge with weighted_sum and no --rank or --energy",
            where=where,
        )
    members = merged.card["parents"]
    found = [
        index
        for index, known in enumerate(members)
        if member in known["domains"] or (len(member) >= 6 and known["digest"].startswith(member))
    ]
    if len(found) != 1:
        names = "; ".join(f"{', '.join(one['domains'])} {one['digest'][:12]}".strip() for one in members)
        raise AdapterError(
            "one adapter of the merge must be meant",
            got=f"{member!r}, which names {len(found)} of them",
            remedy=f"name a domain or a digest of {names}",
            where=where,
        )
    if not members[found[0]]["weight"]:
        raise AdapterError("what was merged at weight 0 is not in the sum", got=member, where=where)
    return found[0]


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
