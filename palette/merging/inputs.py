"""What is merged: adapters as asked for are opened, checked together, and grouped module by module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import open_adapter
from palette.adapters.header import StoredTensors, read_header
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.errors import AdapterError
from palette.merging.settings import MergeSource
from palette.shapes import Float, Tensor

LONGEST_NAME = 120


@dataclass(frozen=True)
class MergeInput:
    """An adapter, its weight, what to call it in an error message, and which modules of it are taken.

    ``globs`` are of module paths: one of them must match, and none that begins with ``!``.
    """

    adapter: Adapter
    weight: float = 1.0
    label: str = "an adapter"
    globs: tuple[str, ...] = ()
    moments: Mapping[str, Tensor] | None = None
    """The second moments of what each module reads on the adapter's task, for methods that ask."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the modules that are taken."""
        excluded = [glob[1:] for glob in self.globs if glob.startswith("!")]
        included = [glob for glob in self.globs if not glob.startswith("!")] or ["*"]
        return frozenset(
            name
            for name in self.adapter.modules
            if any(fnmatchcase(name, glob) for glob in included)
            and not any(fnmatchcase(name, glob) for glob in excluded)
        )

    @property
    def modules(self) -> dict[str, LoraModule]:
        """The modules that are taken, in the order of their names; all of them are read."""
        return {name: self.adapter.modules[name] for name in sorted(self.names)}

    @property
    def identity(self) -> dict[str, Any]:
        """What of this input decides the bytes of a merge, and which domains it brings."""
        taken = {"modules": list(self.globs)} if self.globs else {}
        return {
            "digest": self.adapter.digest,
            "weight": float(self.weight),
            "domains": list(self.adapter.domains),
            **taken,
        }


@dataclass(frozen=True, eq=False)
class Group:
    """One module's factors in those adapters that adapt it, in canonical order, with their weights.

    ``keys`` tell adapters apart wherever they stand (their digests), so that a random mask belongs to
    an adapter and not to its place. ``surveyed`` is what the method's survey found in each whole
    adapter. ``moments`` are the second moments Σ x xᵀ of what the module reads on each adapter's task.
    """

    modules: Sequence[LoraModule]
    weights: Sequence[float]
    name: str = ""
    keys: Sequence[str] = ()
    surveyed: Sequence[float] | None = None
    moments: Sequence[Float[Tensor, "d_in d_in"]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of every ΔW: (d_out, d_in)."""
        return self.modules[0].shape


def open_inputs(sources: Sequence[MergeSource], weights: BackboneWeights | None = None) -> list[MergeInput]:
    """The adapters themselves, in the order given; their modules are read when they are asked for.

    An adapter given twice is refused, since that would double its weight silently, unless each takes
    modules of its own. ``weights`` are the backbone's, which only DoRA needs.

    Raises:
        AdapterError: if one cannot be read, one is given twice, or a filter takes no module.
    """
    inputs = [
        MergeInput(
            open_adapter(source.path, weights),
            source.weight,
            str(source.path),
            source.modules,
            StoredTensors(read_header(source.moments)) if source.moments else None,
        )
        for source in sources
    ]
    taken: dict[tuple[str, str], MergeInput] = {}
    for member in inputs:
        if not member.names:
            raise AdapterError(
                "a filter must take at least one module",
                got=", ".join(member.globs),
                remedy="write globs of module paths, such as *.self_attn.*",
                where=member.label,
            )
        for name in sorted(member.names):
            first = taken.setdefault((member.adapter.digest, name), member)
            if first is not member:
                raise AdapterError(
                    "an adapter may be given once",
                    got=f"the same one as {first.label}",
                    remedy="to strengthen it, give it a weight",
                    where=member.label,
                )
    return inputs


def common_backbone(inputs: Sequence[MergeInput]) -> BackboneIdentity:
    """The backbone that all inputs were made for, with its fingerprint if all of them state it.

    Raises:
        AdapterError: if there are no inputs, or two were made for different backbones.
    """
    if not inputs:
        raise AdapterError("a merge must have at least one adapter", got=0)
    for first, second in combinations(inputs, 2):
        one, other = first.adapter.backbone, second.adapter.backbone
        if not one.agrees(other):
            raise AdapterError(
                "adapters to merge must be made for one backbone",
                got=f"{one} in {first.label} and {other} in {second.label}",
                remedy="train them on the same backbone",
            )
    identities = [member.adapter.backbone for member in inputs]
    names = sorted({identity.name for identity in identities if identity.name})
    verified = all(identity.fingerprint for identity in identities)
    fingerprint = identities[0].fingerprint if verified else None
    return BackboneIdentity(names[0] if names else None, fingerprint)


def group_of(ordered: Sequence[MergeInput], surveyed: Sequence[float | None], name: str) -> Group:
    """One module of the inputs that have it, and of each what was surveyed in it.

    Raises:
        AdapterError: if they disagree about its shape.
    """
    found = [
        (member, number) for member, number in zip(ordered, surveyed, strict=True) if name in member.names
    ]
    present = [member for member, _ in found]
    modules = [member.adapter.modules[name] for member in present]
    for member, module in zip(present, modules, strict=True):
        if module.shape != modules[0].shape:
            raise AdapterError(
                f"adapters must agree about the shape of {name}",
                got=f"{module.shape} in {member.label} and {modules[0].shape} in {present[0].label}",
                remedy="merge adapters of one backbone",
            )
    moments = [member.moments[name] for member in present if member.moments and name in member.moments]
    return Group(
        modules,
        [member.weight for member in present],
        name,
        keys=[member.adapter.digest for member in present],
        surveyed=[number for _, number in found if number is not None] or None,
        moments=moments or None,
    )


def default_output(inputs: Sequence[MergeInput]) -> Path:
    """The folder ``runs/<a>+<b>``, by the adapters' domains if known, else by their files' names.

    The order of the adapters does not matter. A single adapter goes to ``runs/merged-<a>``, since
    ``runs/<a>`` is where its recipe left it.
    """
    labels = sorted(short_name(Path(member.label), member.adapter.domains) for member in inputs)
    name = "+".join(labels) if len(labels) > 1 else f"merged-{labels[0]}"
    return Path("runs") / name[:LONGEST_NAME]


def short_name(path: Path, domains: Sequence[str]) -> str:
    """A short name for an adapter, safe in a file name."""
    if domains:
        name = "+".join(domains)
    elif path.is_dir() or path.stem == "adapter_model":
        name = (path if path.is_dir() else path.parent).resolve().name
    else:
        name = path.stem
    return re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII).lstrip(".") or "adapter"
