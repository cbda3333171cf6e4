"""What the tests of merging share: random adapters, and rotations of their factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule

SHAPES = {"layers.0.down_proj": (10, 12), "layers.1.up_proj": (12, 10), "layers.1.q_proj": (9, 9)}


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., Adapter]:
    """A function of a seed that gives a random float64 adapter of three modules."""

    def make(seed: int, rank: int = 3, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Adapter:
        generator = torch.Generator().manual_seed(seed)
        modules = {
            name: LoraModule(
                torch.randn(rank, d_in, generator=generator, dtype=torch.float64),
                torch.randn(d_out, rank, generator=generator, dtype=torch.float64),
                scale=0.5 + seed % 3,
            )
            for name, (d_out, d_in) in shapes.items()
        }
        return Adapter(modules, BackboneIdentity("tiny", "f"), {"domains": [f"domain{seed}"]})

    return make


@pytest.fixture(scope="session")
def rotated() -> Callable[[Adapter, int], Adapter]:
    """A function that gives the same adapter in other factors: A → G A, B → B G⁻¹."""

    def rotate(adapter: Adapter, seed: int) -> Adapter:
        generator = torch.Generator().manual_seed(seed)
        modules = {}
        for name, module in adapter.modules.items():
            size = (module.rank, module.rank)
            G = torch.eye(module.rank, dtype=torch.float64)
            G += 0.3 * torch.randn(size, generator=generator, dtype=torch.float64)
            modules[name] = LoraModule(G @ module.lora_A, module.lora_B @ torch.linalg.inv(G), module.scale)
        return Adapter(modules, adapter.backbone, adapter.card)

    return rotate


@pytest.fixture(scope="session")
def deltas() -> Callable[[Adapter], torch.Tensor]:
    """A function that gives all ΔW of an adapter as one vector, in the order of the names."""

    def flatten(adapter: Adapter) -> torch.Tensor:
        return torch.cat([adapter.modules[n].delta().flatten() for n in sorted(adapter.modules)])

    return flatten
