"""The modules of an adapter file, each read anew and checked when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from palette.adapters.configuration import Configuration
from palette.adapters.header import DTYPES, READ_DTYPES, Entry, Header, read_stored
from palette.adapters.layouts import Expert, Roles
from palette.adapters.lora import LoraModule, WeightOf, dora_as_lora
from palette.errors import AdapterError
from palette.shapes import Tensor


@dataclass(frozen=True, eq=False)
class StoredModules(Mapping[str, LoraModule]):
    """The modules of a file by their paths; each is read anew, and checked, when it is asked for."""

    header: Header
    roles: Roles
    experts: Mapping[str, Expert]
    configuration: Configuration
    weight_of: WeightOf | None = None

    def __post_init__(self) -> None:
        for name in self.roles:
            problem = _misfit(self.entries_of(name), self.configuration)
            if problem is not None:
                raise _unfit(name, problem, self.header.path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.roles)

    def __len__(self) -> int:
        return len(self.roles)

    def __contains__(self, name: object) -> bool:
        return name in self.roles

    def entries_of(self, name: str) -> dict[str, Entry]:
        """The header's entry of each role in module ``name``, with the shape that the module has."""
        entries = {role: self.header.entries[key] for role, key in self.roles[name].items()}
        return self.experts[name].of_entries(entries) if name in self.experts else entries

    def __getitem__(self, name: str) -> LoraModule:
        keys = self.roles[name]
        factors = dict(zip(keys, read_stored(self.header, tuple(keys.values())), strict=True))
        if name in self.experts:
            factors = self.experts[name].of_factors(factors)
        module = joined_factors(name, factors, self.configuration, self.header.path)
        if "magnitude" not in factors or self.weight_of is None:
            return module
        return dora_as_lora(name, module, factors["magnitude"], self.weight_of(name))


def _misfit(entries: Mapping[str, Entry], configuration: Configuration) -> str | None:
    """What does not fit among the stored factors of a module, or between them and the configuration."""
    down, up = entries["lora_A"], entries["lora_B"]
    alpha, magnitude = entries.get("alpha"), entries.get("magnitude")
    sizes = down.shape + up.shape
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1] or 0 in sizes:
        return f"lora_A {list(down.shape)} and lora_B {list(up.shape)}"
    if not (configuration.ranks_vary or configuration.rank in (None, down.shape[0])):
        return f"rank {down.shape[0]} where the configuration says {configuration.rank}"
    if down.dtype not in DTYPES or up.dtype not in DTYPES:
        return f"{down.dtype} and {up.dtype}"
    if alpha is not None and (alpha.dtype not in READ_DTYPES or math.prod(alpha.shape) != 1):
        return f"an alpha {alpha.dtype} {list(alpha.shape)}"
    if magnitude is not None and (magnitude.dtype not in DTYPES or magnitude.shape != up.shape[:1]):
        return f"a magnitude {magnitude.dtype} {list(magnitude.shape)}"
    return None


def _unfit(name: str, problem: str, where: Path) -> AdapterError:
    return AdapterError(
        "the factors of a module must be finite float matrices [rank d_in] and [d_out rank]",
        got=f"{problem} for {name[:120]}",
        remedy="train or export it again",
        where=where,
    )


def joined_factors(
    name: str, factors: Mapping[str, Tensor], configuration: Configuration, where: Path
) -> LoraModule:
    """One module from its factors, in float32, with the scale that its alpha gives it.

    Raises:
        AdapterError: if a factor is not finite, or its alpha is not the configuration's.
    """
    numbers = {role: factor.float() for role, factor in factors.items()}
    if not all(torch.isfinite(factor).all() for factor in numbers.values()):
        raise _unfit(name, "NaN or infinity", where)
    down, up = numbers["lora_A"], numbers["lora_B"]
    scale = configuration.scale(name, down.shape[0])
    if "alpha" in numbers:
        alpha, stated = float(numbers["alpha"]), configuration.alpha_of(name)
        # bfloat16 keeps three digits of it.
        if stated is not None and abs(alpha - stated) > abs(stated) / 100:
            raise _unfit(name, f"alpha {alpha:g} where the configuration says {stated:g}", where)
        scale = alpha / down.shape[0] if stated is None else scale
    return LoraModule(down, up, scale)
