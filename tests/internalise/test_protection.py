"""Laws of protection: what is not read holds the energy it is told to, and is read nowhere."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.internalise.lora import lora_layers
from palette.internalise.protection import NullSpaceProjection, kept_inputs, loudest, null_space


def drawn(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(1, -2, width)
    return torch.randn(rows, width, generator=generator) * spread


def left(inputs: torch.Tensor, directions: torch.Tensor) -> float:
    """The share of the energy of rows of norm one that the directions leave."""
    unit = (inputs / inputs.norm(dim=-1, keepdim=True)).double()
    return float(1 - (unit @ directions.double()).square().sum() / len(unit))


@given(
    rows=st.integers(1, 30),
    width=st.integers(2, 12),
    energy=st.floats(0.001, 0.9),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_the_loudest_directions_are_the_fewest_that_leave_the_share(rows, width, energy, seed):
    inputs = drawn(rows, width, seed)
    loud = loudest(inputs, energy)
    count = loud.shape[1]
    assert torch.allclose(loud.T @ loud, torch.eye(count), atol=1e-5)
    assert count < width
    if count < width - 1:
        assert left(inputs, loud) <= energy + 1e-6
    if count:
        assert left(inputs, loud[:, :-1]) > energy - 1e-6


def test_every_token_counts_alike_whatever_its_norm():
    inputs = drawn(40, 8, 3)
    scaled = inputs.clone()
    scaled[0] *= 1000
    assert torch.allclose(loudest(inputs, 0.1).abs(), loudest(scaled, 0.1).abs(), atol=1e-4)


@given(rank=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_projection_gives_nothing_along_what_is_projected_out_and_all_else_as_it_was(rank, seed):
    inputs = drawn(20, 6, seed)
    projected_out = loudest(inputs, 0.05)
    projection, weight = NullSpaceProjection(projected_out), drawn(rank, 6, seed + 1)
    read = projection(weight)
    assert torch.allclose(read @ projected_out, torch.zeros(rank, projected_out.shape[1]), atol=1e-4)
    free = inputs - inputs @ projected_out @ projected_out.T
    assert torch.allclose(free @ read.T, free @ weight.T, atol=1e-3)
    assert torch.allclose(projection(read), read, atol=1e-4)


def test_the_null_space_holds_no_more_than_its_share_of_energy():
    x = torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([10.0, 5.0, 1.0, 0.1, 0.01, 0.0])
    free = null_space(x.T @ x, 0.001)
    assert torch.allclose(free.T @ free, torch.eye(free.shape[1], dtype=torch.float64))
    assert (x @ free).square().sum() <= 0.001 * x.square().sum()
    assert free.shape[1] >= 2


def test_inputs_are_those_of_the_bare_backbone_at_the_examples_own_tokens(backbone, pools):
    layers = lora_layers(backbone, [0, 1])
    found = kept_inputs(backbone, layers, pools, 0)
    assert list(found) == layers
    # As many rows as the examples have tokens, and none of them padding's.
    sequences = [example.ids for pool in pools for example in pool]
    seen: list[torch.Tensor] = []
    module = backbone.model.get_submodule(layers[-1])
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
    for ids in sequences:
        backbone.model(torch.tensor([ids]))
    handle.remove()
    apart = torch.cat(seen).detach()
    assert found[layers[-1]].shape == apart.shape
    nearest = torch.cdist(found[layers[-1]], apart).min(1).values
    assert float(nearest.max()) < 1e-4


def test_layers_that_are_given_one_tensor_share_one(backbone, pools):
    found = kept_inputs(backbone, lora_layers(backbone, [0]), pools, 0)
    shared = {name.rsplit(".", 1)[1]: id(inputs) for name, inputs in found.items()}
    assert shared["q_proj"] == shared["k_proj"] == shared["v_proj"]
    assert shared["gate_proj"] == shared["up_proj"]
    assert len(set(shared.values())) == 4
