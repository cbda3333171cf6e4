"""Merging whole adapters: the plan that decides the bytes, and its modules merged one after the other.

Modules are merged by several workers, one BLAS thread each, in order and in bounded memory. A second
BLAS thread makes small factorisations several times slower, and changes their last bits; with one a
worker, how many workers there are changes no byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from typing import Any, TypeVar

import torch

from palette.adapters.factorisation import Truncation
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.errors import AdapterError
from palette.merging.inputs import Group, MergeInput, brought_together, group_of
from palette.merging.methods import MergeMethod, OptionValue, merge_method
from palette.merging.tiles import Tiled, factors
from palette.threads import beside

WORKERS = 4
"""Modules that are merged at a time, where there are cores for so many."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class MergePlan:
    """What is merged, by which method, and how much of each ΔW is kept.

    At most ``rank`` components a module (by default its exact rank), and of these as few as hold the
    ``share`` in (0, 1] of its energy.
    """

    inputs: Sequence[MergeInput]
    method: str = "weighted_sum"
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    rank: int | None = None
    share: float = 1.0
    dtype: str = "float32"
    """The precision in which it is written."""
    same_backbone: bool = False
    """Whether different names of backbones are said to mean one."""

    @cached_property
    def row(self) -> MergeMethod:
        """The method's row of the table, or one of a user's own."""
        return merge_method(self.method)

    @cached_property
    def settled(self) -> dict[str, OptionValue]:
        """Every option of the method with its value."""
        return self.row.settled(self.options)

    @cached_property
    def ordered(self) -> list[MergeInput]:
        """The inputs in canonical order, which no path and no argument decides, with one name a module.

        Raises:
            AdapterError: if they do not name the layers of one backbone alike.
        """
        together = brought_together(self.inputs)
        return sorted(together, key=lambda one: (one.adapter.digest, one.weight, one.globs))

    @cached_property
    def backbone(self) -> BackboneIdentity:
        """The one backbone that all inputs were made for, with its fingerprint if all of them state it.

        Raises:
            AdapterError: if there are no inputs, or two were made for different backbones.
        """
        if not self.inputs:
            raise AdapterError("a merge must have at least one adapter", got=0)
        for first, second in combinations(self.inputs, 2):
            one, other = first.adapter.backbone, second.adapter.backbone
            if not one.agrees(other, same=self.same_backbone):
                proof = one.fingerprint and other.fingerprint
                raise AdapterError(
                    "adapters to merge must be made for one backbone",
                    got=f"{one} in {first.label} and {other} in {second.label}",
                    remedy="their digests differ: train one of them again on the other's backbone"
                    if proof
                    else "if both names mean one model, quantised or not, say so with --same-backbone",
                )
        identities = [member.adapter.backbone for member in self.inputs]
        name = min((identity.name for identity in identities if identity.name), default=None)
        verified = all(identity.fingerprint for identity in identities)
        return BackboneIdentity(name, identities[0].fingerprint if verified else None)

    @property
    def vouched(self) -> bool:
        """Whether the inputs have one backbone only because that was said."""
        identities = [member.adapter.backbone for member in self.inputs]
        return not all(one.agrees(other) for one, other in combinations(identities, 2))

    @cached_property
    def names(self) -> list[str]:
        """The names of all modules that are merged, sorted."""
        return sorted({name for member in self.ordered for name in member.names})

    @property
    def domains(self) -> list[str]:
        """The domains that the inputs authorise, sorted."""
        return sorted({domain for member in self.inputs for domain in member.adapter.domains})

    def recipe(self) -> dict[str, Any]:
        """What decides the bytes of the result, in canonical order."""
        recipe: dict[str, Any] = {"method": self.method, "options": self.settled}
        if self.rank is not None:
            recipe["rank"] = self.rank
        if self.share < 1:
            recipe["energy"] = self.share
        recipe["parents"] = [member.identity for member in self.ordered]
        if self.vouched:
            recipe["same_backbone"] = True
        return recipe if self.dtype == "float32" else {**recipe, "dtype": self.dtype}

    def merger(self) -> Callable[[str], tuple[Group, LoraModule | Tiled]]:
        """What gives the group of a module, and its merged ΔW at the rank that the method gives it.

        A function of the ΔW of the inputs: rotated factors change nothing, and the order of the inputs
        changes no byte. A module that an adapter lacks counts as a ΔW of zero there.

        Raises:
            AdapterError: if there is no input, or they do not fit one backbone.
            RecipeError: if there is no such method, or its options are not the ones given.
        """
        function, options = self.row.load(), self.settled
        _ = self.backbone
        survey = self.row.survey.load() if self.row.survey else None
        surveyed = [survey(member.modules, **options) if survey else None for member in self.ordered]

        def merge(name: str) -> tuple[Group, LoraModule | Tiled]:
            group = group_of(self.ordered, surveyed, name)
            return group, function(group, **options)

        return merge


@dataclass(frozen=True)
class MergedModule:
    """The merged ΔW of one module, and how many of its components are each input's, in their order.

    They are nobody's where the method, or the rank, mixes them.
    """

    name: str
    truncation: Truncation
    components: tuple[int, ...] | None = None


@dataclass
class Retention:
    """What a merge kept: its rank, and the shares of energy in [0, 1], overall and at the worst."""

    rank: int = 0
    worst_module: str = ""
    worst_retained_energy: float = math.inf
    kept: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    components: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def note(self, merged: MergedModule) -> None:
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
        lists = {name: list(counts) for name, counts in sorted(self.components.items()) if counts is not None}
        if len(lists) < len(self.components):
            return {}
        first = next(iter(lists.values()), None)
        return {"components": first if all(counts == first for counts in lists.values()) else lists}


def merged_modules(plan: MergePlan, *, canonical: bool = False) -> Iterator[MergedModule]:
    """The merged ΔW of every module, in the order of their names, one after the other.

    ``canonical`` gives them as they are written.

    Raises:
        AdapterError: if there is no input or no module, or they do not fit one backbone.
        RecipeError: if there is no such method, or its options are not the ones given.
    """
    result = plan.merger()
    if not plan.names:
        raise AdapterError("a merge must take at least one module", got="none")

    def merge(name: str) -> MergedModule:
        group, merged = result(name)
        truncation = factors(merged, plan.rank, plan.share)
        if canonical:
            truncation = truncation._replace(module=truncation.module.canonical())
        counts = [
            module.trimmed().rank if weight else 0
            for module, weight in zip(group.modules, group.weights, strict=True)
        ]
        if not plan.row.stacks or truncation.module.rank != sum(counts):
            return MergedModule(name, truncation)
        each = iter(counts)
        by_input = tuple(next(each) if name in member.names else 0 for member in plan.ordered)
        return MergedModule(name, truncation, by_input)

    return in_order(merge, plan.names)


def combine(
    inputs: Sequence[MergeInput],
    method: str = "weighted_sum",
    *,
    rank: int | None = None,
    options: Mapping[str, OptionValue] | None = None,
) -> tuple[Adapter, Retention]:
    """The merged adapter, held in memory, and what the rank kept of it; see ``merged_modules``.

    Raises:
        AdapterError: if the inputs do not fit one backbone.
        RecipeError: if there is no such method, or its options are not the ones given.
    """
    plan = MergePlan(inputs, method, options or {}, rank)
    modules, retention = {}, Retention()
    for merged in merged_modules(plan):
        modules[merged.name] = merged.truncation.module
        retention.note(merged)
    card = {**plan.recipe(), "domains": plan.domains, "retained_energy": retention.retained_energy}
    return Adapter(modules, plan.backbone, card), retention


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for torch's own operations inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS
) -> Iterator[Result]:
    """The results of ``function``, in the order of the items; at most two a worker are held."""
    with single_threaded():
        yield from beside((partial(function, item) for item in items), workers)
