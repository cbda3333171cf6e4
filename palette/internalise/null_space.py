"""What an adapter may read: the directions of a layer's input that say little of what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.functional import normalize

from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.internalise.examples import Example
from palette.seeding import shuffler
from palette.shapes import Float, Tensor

EXAMPLES = 64
"""Of each pool at most; what their inputs span no longer grows with more."""

TOKENS = 8
"""Of each example at most, drawn at random."""


class Reading(nn.Module):
    """A parametrisation of lora_A: A ↦ A (I − V Vᵀ), which does not read along the columns of V."""

    projected_out: Tensor

    def __init__(self, projected_out: Float[Tensor, "width _barred"]) -> None:
        super().__init__()
        self.register_buffer("projected_out", projected_out)

    def forward(self, weight: Float[Tensor, "rank width"]) -> Float[Tensor, "rank width"]:
        """The weight without what reads along V."""
        return weight - (weight @ self.projected_out) @ self.projected_out.T


def protected_directions(
    backbone: Backbone, layers: Sequence[str], pools: Sequence[Sequence[Example]], energy: float, seed: int
) -> dict[str, Float[Tensor, "width _barred"]]:
    """For each layer the input directions that an adapter is not to read, orthonormal columns.

    They are those along which the inputs of the pools' examples are largest; the others hold at most
    this share of their energy. What an adapter reads there is the same for all prompts, or tells apart
    what must stay anyway. AlphaSteer (arXiv 2506.07022) bars one edit so; here every factor A of a LoRA.
    """
    found = kept_inputs(backbone, layers, pools, seed)
    distinct = {id(inputs): inputs for inputs in found.values()}
    directions = {key: loudest(inputs, energy) for key, inputs in distinct.items()}
    return {layer: directions[id(inputs)] for layer, inputs in found.items()}


def loudest(inputs: Float[Tensor, "row width"], energy: float) -> Float[Tensor, "width _loud"]:
    """The fewest orthonormal directions, loudest first, that leave this share of the energy at most.

    Every row counts alike, whatever its norm: a few tokens of many models are a thousand times larger.
    At least one direction of the inputs is left free.
    """
    _, values, vectors = torch.linalg.svd(normalize(inputs.double(), dim=-1), full_matrices=False)
    shares = values.square() / values.square().sum().clamp(min=1e-30)
    left = shares.flip(0).cumsum(0).flip(0)
    count = min(int((left > energy).sum()), inputs.shape[1] - 1)
    loud: Tensor = vectors[:count].T.to(inputs.dtype)
    return loud


@torch.no_grad()
def kept_inputs(
    backbone: Backbone, layers: Sequence[str], pools: Sequence[Sequence[Example]], seed: int
) -> dict[str, Float[Tensor, "row width"]]:
    """For each layer its inputs on the bare backbone at tokens drawn of the pools' examples, float32.

    Layers that are given the same tensor share one.
    """
    draw = shuffler(seed, "reading")
    rows = [row for pool in pools for row in draw.sample(list(pool), min(EXAMPLES, len(pool)))]
    modules = {name: backbone.model.get_submodule(name) for name in layers}
    met: dict[str, Tensor] = {}
    held: dict[tuple[str, ...], list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: met.update({name: args[0]}))
        for name, module in modules.items()
    ]
    try:
        for batch in batches([row.ids for row in rows], backbone.pad, backbone.model.device):
            chosen = torch.zeros_like(batch.mask, dtype=torch.bool)
            for line, index in enumerate(batch.rows):
                length = len(rows[index].ids)
                places = draw.sample(range(length), min(TOKENS, length))
                chosen[line, [place - length for place in places]] = True
            forward(backbone, batch)
            # An expert is given some tokens only, in no row's order; it reads all that it is given.
            whole = {name: tensor for name, tensor in met.items() if tensor.shape[:2] == chosen.shape}
            for names in _alike(whole):
                held.setdefault(names, []).append(whole[names[0]][chosen].float())
    finally:
        for handle in handles:
            handle.remove()
    inputs = {names: torch.cat(parts) for names, parts in held.items()}
    return {name: whole for names, whole in inputs.items() for name in names}


def _alike(met: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """The names in groups of one tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in met.items():
        groups.setdefault(id(tensor), []).append(name)
    return [tuple(names) for names in groups.values()]


__all__ = ["Reading", "kept_inputs", "loudest", "protected_directions"]
