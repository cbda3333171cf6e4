"""Merging whole adapters: a method per module, in canonical order, then the rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palette.adapters.factorisation import Truncation
from palette.adapters.lora import Adapter, LoraModule
from palette.errors import AdapterError
from palette.merging.group import Group
from palette.merging.methods import MergeMethod
from palette.merging.options import OptionValue
from palette.merging.plan import MergeInput, MergePlan, common_backbone
from palette.merging.rangefinder import factors
from palette.merging.tiles import Tiled
from palette.merging.workers import in_order


@dataclass(frozen=True)
class Merged:
    """The merged ΔW of one module, and how many of its components are each input's, in their order.

    They are nobody's where the method, or the rank, mixes them.
    """

    name: str
    truncation: Truncation
    components: tuple[int, ...] | None = None


@dataclass
class MergeReport:
    """What a merge kept: its rank, and the shares of energy in [0, 1], overall and at the worst."""

    rank: int = 0
    worst_module: str = ""
    worst_retained_energy: float = math.inf
    kept: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    components: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def note(self, merged: Merged) -> None:
        """Takes one module into the account."""
        name, truncation = merged.name, merged.truncation
        self.components[name] = merged.components
        self.rank = max(self.rank, truncation.module.rank)
        self.kept.append(truncation.kept)
        self.total.append(truncation.total)
        if truncation.retained_energy < self.worst_retained_energy:
            self.worst_module, self.worst_retained_energy = name, truncation.retained_energy

    @property
    def retained_energy(self) -> float:
        """The share of all modules' energy that is kept; 1 where there is none."""
        total = math.fsum(self.total)
        return min(1.0, math.fsum(self.kept) / total) if total > 0 else 1.0

    def parting(self) -> dict[str, Any]:
        """How the result can be taken apart again: each input's components, by module.

        One list for all modules where it is the same; nothing where they are mixed in any module.
        """
        found = dict(sorted(self.components.items()))
        lists = [list(counts) for counts in found.values() if counts is not None]
        if len(lists) < len(found):
            return {}
        if all(one == lists[0] for one in lists):
            return {"components": lists[0]}
        return {"components": dict(zip(found, lists, strict=True))}


def merger(plan: MergePlan) -> Callable[[str], tuple[Group, LoraModule | Tiled]]:
    """What gives the group of a module, and its merged ΔW at the rank that the method gives it.

    A function of the ΔW of the inputs: rotated factors change nothing, and the order of the inputs
    changes no byte. A module that an adapter lacks counts as a ΔW of zero there.

    Raises:
        AdapterError: if there is no input, or they do not fit one backbone.
        RecipeError: if there is no such method, or its options are not the ones given.
    """
    row, options = plan.row, plan.row.settled(plan.options)
    common_backbone(plan.inputs)
    surveyed = [survey(one, row, options) for one in plan.ordered]

    def merge(name: str) -> tuple[Group, LoraModule | Tiled]:
        group = group_of(plan.ordered, surveyed, name)
        return group, row.function(group, **options)

    return merge


def merged_modules(plan: MergePlan, *, canonical: bool = False) -> Iterator[Merged]:
    """The merged ΔW of every module, in the order of their names, one after the other; see ``merger``.

    ``canonical`` gives them as they are written.

    Raises:
        AdapterError: if there is no input or no module, or they do not fit one backbone.
        RecipeError: if there is no such method, or its options are not the ones given.
    """
    result = merger(plan)
    names = {name for one in plan.inputs for name in one.names}
    if not names:
        raise AdapterError("a merge must take at least one module", got="none")

    def merge(name: str) -> Merged:
        group, merged = result(name)
        truncation = factors(merged, plan.rank, plan.share)
        if canonical:
            truncation = truncation._replace(module=truncation.module.canonical())
        whole = plan.row.stacks and truncation.module.rank == sum(components_of(group))
        if not whole:
            return Merged(name, truncation)
        own = iter(components_of(group))
        return Merged(name, truncation, tuple(next(own) if name in one.names else 0 for one in plan.ordered))

    return in_order(merge, sorted(names), plan.workers)


def components_of(group: Group) -> list[int]:
    """How many components a sum takes from each module."""
    return [
        module.trimmed().rank if weight else 0
        for module, weight in zip(group.modules, group.weights, strict=True)
    ]


def combine(
    inputs: Sequence[MergeInput],
    method: str = "weighted_sum",
    *,
    rank: int | None = None,
    options: Mapping[str, OptionValue] | None = None,
) -> tuple[Adapter, MergeReport]:
    """The merged adapter, held in memory, and what the rank kept of it; see ``merged_modules``.

    Raises:
        AdapterError: if the inputs do not fit one backbone.
        RecipeError: if there is no such method, or its options are not the ones given.
    """
    plan = MergePlan(inputs, method, options or {}, rank)
    modules, report = {}, MergeReport()
    for merged in merged_modules(plan):
        modules[merged.name] = merged.truncation.module
        report.note(merged)
    card = {**plan.recipe(), "domains": plan.domains, "retained_energy": report.retained_energy}
    return Adapter(modules, plan.backbone, card), report


def survey(one: MergeInput, row: MergeMethod, options: Mapping[str, OptionValue]) -> float | None:
    """What the method finds in one whole adapter before any module is merged."""
    if row.survey is None:
        return None
    return row.survey({name: one.adapter.modules[name] for name in sorted(one.names)}, **options)


def group_of(ordered: Sequence[MergeInput], surveyed: Sequence[float | None], name: str) -> Group:
    """One module of the inputs that have it.

    Raises:
        AdapterError: if they disagree about its shape.
    """
    found = [(one, number) for one, number in zip(ordered, surveyed, strict=True) if name in one.names]
    present = [one for one, _ in found]
    modules = [one.adapter.modules[name] for one in present]
    for one, module in zip(present, modules, strict=True):
        if module.shape != modules[0].shape:
            raise AdapterError(
                f"adapters must agree about the shape of {name}",
                got=f"{module.shape} in {one.label} and {modules[0].shape} in {present[0].label}",
                remedy="merge adapters of one backbone",
            )
    moments = [one.moments[name] for one in present if one.moments and name in one.moments]
    return Group(
        modules,
        [one.weight for one in present],
        name,
        keys=[one.adapter.digest for one in present],
        surveyed=[number for _, number in found if number is not None] or None,
        moments=moments or None,
    )
