"""LoRA as values: the factors of one module, a whole adapter, and the geometry of ΔW.

An adapter means its deltas ΔW = scale · B A, never its factors: (A, B) and (G A, B G⁻¹) are one
adapter. What is measured here is a function of ΔW, computed from the factors in float64 without
forming it:

    ⟨ΔWᵢ, ΔWⱼ⟩ = scaleᵢ scaleⱼ Σ (BᵢᵀBⱼ) ∘ (AᵢAⱼᵀ)

DoRA (2402.09353) is a ΔW too, once the backbone's own weight W is known. It gives each row of
W + s B A the length that its magnitude vector m says, so that

    ΔW = c ∘ (W + s B A) − W = (c − 1) ∘ W + c ∘ s B A    with    c = m / ‖W + s B A‖ by rows

The first term has the rank of W in general, so that no factors smaller than W hold ΔW.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from palette.errors import AdapterError
from palette.models import HUB_NAME, cached_name
from palette.shapes import Float, Int, Tensor

WeightOf = Callable[[str], Tensor]
"""The backbone's own weight [d_out, d_in] of a module, by the module's path."""


@dataclass(frozen=True, eq=False)
class LoraModule:
    """The low-rank delta of one linear module: ΔW = scale · lora_B lora_A."""

    lora_A: Float[Tensor, "rank d_in"]
    lora_B: Float[Tensor, "d_out rank"]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The number of components, null ones included."""
        return int(self.lora_A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of ΔW: (d_out, d_in)."""
        return int(self.lora_B.shape[0]), int(self.lora_A.shape[1])

    def norm(self) -> float:
        """The Frobenius norm of ΔW."""
        return math.sqrt(max(0.0, module_inner_product(self, self)))

    def delta(self) -> Float[Tensor, "d_out d_in"]:
        """ΔW, dense, in float64."""
        return self.scale * (self.lora_B.double() @ self.lora_A.double())

    def folded(self, dtype: torch.dtype = torch.float64) -> LoraModule:
        """The same ΔW with the scale inside lora_B, in ``dtype``."""
        scaled = self.lora_B if self.scale == 1 else self.scale * self.lora_B.double()
        return LoraModule(self.lora_A.to(dtype), scaled.to(dtype))

    def trimmed(self) -> LoraModule:
        """The same ΔW without the components that are exactly null, such as padding."""
        alive = (self.lora_A != 0).any(dim=1) & (self.lora_B != 0).any(dim=0)
        if alive.all():
            return self
        return LoraModule(self.lora_A[alive], self.lora_B[:, alive], self.scale)

    def balanced(self) -> LoraModule:
        """The same ΔW to the last bit, with the two vectors of each component equally large.

        Each component is shifted by a power of two taken from its largest magnitudes. Unlike a
        square root of norms this rounds nothing, does not depend on the order of a sum, and leaves
        balanced factors as they are.
        """
        if self.rank == 0:
            return self
        exponent_in = torch.frexp(self.lora_A.abs().amax(dim=1)).exponent
        exponent_out = torch.frexp(self.lora_B.abs().amax(dim=0)).exponent
        shift = torch.div(exponent_out - exponent_in, 2, rounding_mode="floor")
        if not shift.any():
            return self
        return LoraModule(
            (self.lora_A * power_of_two(shift)[:, None]).to(self.lora_A.dtype),
            (self.lora_B * power_of_two(-shift)).to(self.lora_B.dtype),
            self.scale,
        )

    def canonical(self) -> LoraModule:
        """The form in which adapters are written and identified; it is its own canonical form.

        Float32, scale 1, balanced, without null components.
        """
        return self.folded(torch.float32).trimmed().balanced()


def power_of_two(exponent: Int[Tensor, " component"]) -> Float[Tensor, " component"]:
    """2 to the ``exponent``, in float64 and exact: the exponent's bits are written as they are."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


def _named(name: str | None) -> str:
    """A backbone's name as it is compared: a tidy path, or the hub's name, whose case means nothing there."""
    tidy = posixpath.normpath((name or "").strip().replace("\\", "/"))
    tidy = cached_name(tidy) or tidy
    return tidy.casefold() if "/" in tidy and HUB_NAME.fullmatch(tidy) else tidy


@dataclass(frozen=True)
class BackboneIdentity:
    """Which backbone an adapter was made for: its name and its fingerprint, where known."""

    name: str | None = None
    fingerprint: str | None = None

    def agrees(self, other: BackboneIdentity, *, same: bool = False) -> bool:
        """Whether both name one backbone: by fingerprint where both are known, else by name.

        Whoever says that names mean the ``same`` is believed; a missing name contradicts none.
        """
        if self.fingerprint is not None and other.fingerprint is not None:
            return self.fingerprint == other.fingerprint
        return same or None in (self.name, other.name) or _named(self.name) == _named(other.name)

    def __str__(self) -> str:
        """The name and the start of the fingerprint, for a message."""
        known = [self.name, self.fingerprint and self.fingerprint[:12]]
        return " ".join(part for part in known if part) or "an unnamed backbone"


@dataclass(frozen=True, eq=False)
class Adapter:
    """LoRA modules by the backbone's own module paths, the backbone they fit, and their card."""

    modules: Mapping[str, LoraModule]
    backbone: BackboneIdentity = BackboneIdentity()
    card: Mapping[str, Any] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    """The names by which PEFT finds its modules in the backbone and no others, as far as they are known."""

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((module.rank for module in self.modules.values()), default=0)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the card says this adapter authorises, sorted; empty where unknown."""
        domains = self.card.get("domains")
        return tuple(sorted(map(str, domains))) if isinstance(domains, list | tuple) else ()

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of the canonical factors; padding, balancing and rewriting keep it."""
        digest = hashlib.sha256()
        for name in sorted(self.modules):
            feed(digest.update, name, self.modules[name].canonical())
        return digest.hexdigest()


def feed(update: Callable[[Any], None], name: str, module: LoraModule) -> None:
    """Gives a canonical module to ``update``; nothing of it is held afterwards."""
    update(f"{name} {module.rank} {module.shape}\n".encode())
    for factor in (module.lora_A, module.lora_B):
        update(factor.detach().cpu().float().contiguous().view(-1).numpy())


def dora_as_lora(
    name: str, module: LoraModule, magnitude: Float[Tensor, " row"], weight: Float[Tensor, "out in"]
) -> LoraModule:
    """The ΔW of DoRA as factors of rank min(d_out, d_in), one of them the identity, in float32.

    It is computed in float64 as PEFT defines it, and rounded once.

    Raises:
        AdapterError: if the weight or the magnitudes do not fit, or a row of W + s B A is null.
    """
    d_out, d_in = module.shape
    remedy = "give the backbone that the adapter was made for"
    if tuple(weight.shape) != module.shape or len(magnitude) != d_out:
        raise AdapterError(
            f"DoRA's weight and magnitudes must fit its factors, {d_out}×{d_in}",
            got=f"{list(weight.shape)} and {list(magnitude.shape)} for {name}",
            remedy=remedy,
        )
    adapted = weight.double() + module.delta()
    rescaled = magnitude.double() / torch.linalg.vector_norm(adapted, dim=1)
    delta = (rescaled[:, None] * adapted - weight.double()).float()
    if not torch.isfinite(delta).all():
        raise AdapterError(
            "DoRA must give a finite ΔW", got=f"a null row, NaN or infinity for {name}", remedy=remedy
        )
    return LoraModule(torch.eye(d_in), delta) if d_in <= d_out else LoraModule(delta, torch.eye(d_out))


def module_inner_product(first: LoraModule, second: LoraModule) -> float:
    """The Frobenius inner product of two ΔW of one module, in factor space."""
    outputs = first.lora_B.double().T @ second.lora_B.double()
    inputs = first.lora_A.double() @ second.lora_A.double().T
    return first.scale * second.scale * float((outputs * inputs).sum())


def shared_modules(first: Adapter, second: Adapter) -> list[str]:
    """The names of the modules that both adapt, sorted."""
    return sorted(set(first.modules) & set(second.modules))


def inner_product(first: Adapter, second: Adapter) -> float:
    """The Frobenius inner product of two adapters' ΔW over the modules they share."""
    names = shared_modules(first, second)
    return math.fsum(module_inner_product(first.modules[name], second.modules[name]) for name in names)


def norm(adapter: Adapter) -> float:
    """The Frobenius norm of an adapter's ΔW over all its modules."""
    return math.sqrt(max(0.0, inner_product(adapter, adapter)))


def cosine(first: Adapter, second: Adapter) -> float:
    """The cosine in [-1, 1] between two adapters' ΔW; 0 where one of them is null."""
    size = norm(first) * norm(second)
    return max(-1.0, min(1.0, inner_product(first, second) / size)) if size else 0.0
