"""What is merged: adapters as asked for are opened, checked together, and grouped module by module."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from palette.adapters.backbone_weights import BackboneWeights
from palette.adapters.files import open_adapter
from palette.adapters.header import StoredTensors, read_header
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.names import DECODERS, layers_of, of_text
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
    renamed: tuple[str, str] | None = None
    """The adapter's own prefix of the text decoder's layers, and the one that they have in the merge."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the modules that are taken."""
        return frozenset(self._own)

    @cached_property
    def _own(self) -> dict[str, str]:
        """The adapter's own name of each module that is taken."""
        names = list(self.adapter.modules)
        included = [glob for glob in self.globs if not glob.startswith("!")] or ["*"]
        excluded = [glob[1:] for glob in self.globs if glob.startswith("!")]
        taken, barred = (
            {name for glob in globs for name in fnmatch.filter(names, glob)} for globs in (included, excluded)
        )
        own, shared = self.renamed or ("", "")
        return {
            shared + name.removeprefix(own) if layers_of(name)[0] == own else name: name
            for name in taken - barred
        }

    def module(self, name: str) -> LoraModule:
        """One of the modules that are taken, by its name in the merge; it is read."""
        return self.adapter.modules[self._own[name]]

    def moment(self, name: str) -> Tensor | None:
        """The second moments of what a module reads, where they are known."""
        return self.moments.get(self._own[name]) if self.moments else None

    @property
    def modules(self) -> dict[str, LoraModule]:
        """The modules that are taken; all of them are read."""
        return {name: self.module(name) for name in self._own}

    def layers(self) -> set[tuple[str, str]]:
        """The prefixes and names of the lists of layers that the modules are in, of text alone."""
        found = {layers_of(name) for name in self._own} - {("", "")}
        return {(prefix, name) for prefix, name in found if of_text(prefix)}

    @property
    def identity(self) -> dict[str, Any]:
        """What of this input decides the bytes of a merge, and which domains it brings."""
        return {
            "digest": self.adapter.digest,
            "weight": float(self.weight),
            "domains": list(self.adapter.domains),
            **({"modules": list(self.globs)} if self.globs else {}),
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


def brought_together(inputs: Sequence[MergeInput]) -> list[MergeInput]:
    """The inputs with one name for each module, where they name a text decoder as two classes of a model do.

    Then it is named as in the class that sees, since a model without one has no adapters of it.

    Raises:
        AdapterError: if an adapter names the decoder twice, or two name no list of layers alike.
    """
    prefixes = [{prefix for prefix, _ in member.layers() if prefix in DECODERS} for member in inputs]
    for member, own in zip(inputs, prefixes, strict=True):
        if len(own) > 1:
            raise AdapterError(
                "an adapter must name its layers as one class of the model does",
                got=f"layers under {' and '.join(sorted(own))}",
                remedy="take one of them with a merge recipe's modules, or save it again",
                where=member.label,
            )
    shared = next((prefix for prefix in DECODERS if {prefix} in prefixes), "")
    together = [
        replace(member, renamed=(own.pop(), shared)) if own and shared not in own else member
        for member, own in zip(inputs, prefixes, strict=True)
    ]
    listed = [(member, member.layers()) for member in together]
    for (first, one), (second, other) in combinations(listed, 2):
        if one and other and not one & other:
            named = [", ".join(sorted("".join(each).rstrip(".") for each in lists)) for lists in (one, other)]
            raise AdapterError(
                "adapters of one backbone must name its layers alike",
                got=f"{named[0]} in {first.label} and {named[1]} in {second.label}",
                remedy="save one of them again from the class of the model that the other was trained on",
            )
    return together


def group_of(ordered: Sequence[MergeInput], surveyed: Sequence[float | None], name: str) -> Group:
    """One module of the inputs that have it, and of each what was surveyed in it.

    Raises:
        AdapterError: if they disagree about its shape.
    """
    present = [member for member in ordered if name in member.names]
    modules = [member.module(name) for member in present]
    for member, module in zip(present, modules, strict=True):
        if module.shape != modules[0].shape:
            raise AdapterError(
                f"adapters must agree about the shape of {name}",
                got=f"{module.shape} in {member.label} and {modules[0].shape} in {present[0].label}",
                remedy="merge adapters of one backbone",
            )
    pairs = zip(ordered, surveyed, strict=True)
    thresholds = [number for member, number in pairs if name in member.names and number is not None]
    moments = [moment for member in present if (moment := member.moment(name)) is not None]
    return Group(
        modules,
        [member.weight for member in present],
        name,
        keys=[member.adapter.digest for member in present],
        surveyed=thresholds or None,
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
