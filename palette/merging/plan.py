"""What is merged: adapters with their weights, and the plan that decides the bytes of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import combinations
from typing import Any

from palette.adapters.lora import Adapter, BackboneIdentity
from palette.errors import AdapterError, RecipeError
from palette.merging.methods import METHODS, MergeMethod
from palette.merging.options import OptionValue
from palette.shapes import Tensor


@dataclass(frozen=True)
class MergeInput:
    """An adapter, its weight, what to call it in an error message, and which modules of it are taken.

    ``only`` are globs of module paths: one of them must match, and none that begins with ``!``.
    """

    adapter: Adapter
    weight: float = 1.0
    label: str = "an adapter"
    only: tuple[str, ...] = ()
    moments: Mapping[str, Tensor] | None = None
    """The second moments of what each module reads on the adapter's task, for methods that ask."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the modules that are taken."""
        excluded = [glob[1:] for glob in self.only if glob.startswith("!")]
        included = [glob for glob in self.only if not glob.startswith("!")] or ["*"]
        return frozenset(
            name
            for name in self.adapter.modules
            if any(fnmatchcase(name, glob) for glob in included)
            and not any(fnmatchcase(name, glob) for glob in excluded)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What of this input decides the bytes of a merge, and which domains it brings."""
        taken = {"modules": list(self.only)} if self.only else {}
        return {
            "digest": self.adapter.digest,
            "weight": float(self.weight),
            "domains": list(self.adapter.domains),
            **taken,
        }


@dataclass(frozen=True)
class MergePlan:
    """What is merged, by which method, and how much of each ΔW is kept.

    At most ``rank`` components a module (by default its exact rank), and of these as few as hold the
    ``share`` in (0, 1] of its energy. ``workers`` changes no byte.
    """

    inputs: Sequence[MergeInput]
    method: str = "weighted_sum"
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    rank: int | None = None
    share: float = 1.0
    workers: int = 1

    @property
    def row(self) -> MergeMethod:
        """The method's row of the table.

        Raises:
            RecipeError: if there is none.
        """
        if self.method not in METHODS:
            law = "a merge method must be in the table"
            raise RecipeError(law, got=self.method, remedy=f"use {' or '.join(METHODS)}")
        return METHODS[self.method]

    @cached_property
    def ordered(self) -> list[MergeInput]:
        """The inputs in canonical order, which no path and no argument decides."""
        return sorted(self.inputs, key=lambda one: (one.adapter.digest, one.weight, one.only))

    @cached_property
    def backbone(self) -> BackboneIdentity:
        """The one backbone of all inputs; see ``common_backbone``."""
        return common_backbone(self.inputs)

    @property
    def domains(self) -> list[str]:
        """The domains that the inputs authorise, sorted."""
        return sorted({domain for one in self.inputs for domain in one.adapter.domains})

    def recipe(self) -> dict[str, Any]:
        """What decides the bytes of the result, in canonical order."""
        recipe: dict[str, Any] = {"method": self.method, "options": self.row.settled(self.options)}
        if self.rank is not None:
            recipe["rank"] = self.rank
        if self.share < 1:
            recipe["energy"] = self.share
        return {**recipe, "parents": [one.identity for one in self.ordered]}


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
    identities = [one.adapter.backbone for one in inputs]
    names = sorted({identity.name for identity in identities if identity.name})
    verified = all(identity.fingerprint for identity in identities)
    fingerprint = identities[0].fingerprint if verified else None
    return BackboneIdentity(names[0] if names else None, fingerprint)
