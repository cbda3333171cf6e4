"""Which input directions an adapter does not read, so that what must stay stays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn
from torch.nn.functional import normalize

from palette.adapters.layouts import WEIGHT
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.internalise.examples import Example
from palette.seeding import shuffler
from palette.shapes import Float, Tensor

EXAMPLES = 64
"""Of each pool at most; what their inputs span no longer grows with more."""
TOKENS = 8
"""Of each example at most, drawn at random."""


class NullSpaceProjection(nn.Module):
    """A parametrisation of lora_A: A ↦ A (I − V Vᵀ), which does not read along the columns of V."""

    projected_out: Tensor

    def __init__(self, projected_out: Float[Tensor, "width _out"]) -> None:
        super().__init__()
        self.register_buffer("projected_out", projected_out)

    def forward(self, weight: Float[Tensor, "rank width"]) -> Float[Tensor, "rank width"]:
        """The weight without what reads along V."""
        return weight - (weight @ self.projected_out) @ self.projected_out.T


def protected_directions(
    backbone: Backbone, layers: Sequence[str], pools: Sequence[Sequence[Example]], energy: float, seed: int
) -> dict[str, Float[Tensor, "width _out"]]:
    """For each layer the input directions that an adapter is not to read, orthonormal columns.

    They are those along which the inputs of the pools' examples are largest; the others hold at most
    this share of their energy. What an adapter reads there is the same for all prompts, or tells apart
    what must stay anyway. AlphaSteer (arXiv 2506.07022) projects one edit so; here every factor A.
    """
    inputs = kept_inputs(backbone, layers, pools, seed)
    distinct = {id(rows): rows for rows in inputs.values()}
    directions = {key: loudest(rows, energy) for key, rows in distinct.items()}
    return {layer: directions[id(rows)] for layer, rows in inputs.items()}


def loudest(inputs: Float[Tensor, "row width"], energy: float) -> Float[Tensor, "width _loud"]:
    """The fewest orthonormal directions, loudest first, that leave this share of the energy at most.

    Every row counts alike, whatever its norm: a few tokens of many models are a thousand times larger.
    At least one direction of the inputs is left free.
    """
    rows = normalize(inputs.double(), dim=-1)
    # Of the Gram matrix: an SVD of all rows takes several times as long for the same directions.
    vectors, free = _by_energy(rows.T @ rows, energy)
    return vectors[:, free:].flip(1).to(inputs.dtype)


def null_space(moment: Float[Tensor, "width width"], energy: float) -> Float[Tensor, "width _free"]:
    """The orthonormal directions of least energy that together hold at most this share of it."""
    vectors, free = _by_energy(moment, energy)
    return vectors[:, :free]


def _by_energy(moment: Float[Tensor, "width width"], energy: float) -> tuple[Tensor, int]:
    """The eigenvectors, quietest first, and how many of the first hold this share at most; one at least."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0)
    held = (values / values.sum().clamp(min=1e-30)).cumsum(0)
    return vectors, max(1, int((held <= energy).sum()))


@torch.no_grad()
def kept_inputs(
    backbone: Backbone, layers: Sequence[str], pools: Sequence[Sequence[Example]], seed: int
) -> dict[str, Float[Tensor, "row width"]]:
    """For each layer its inputs on the bare backbone at tokens drawn of the pools' examples, float32.

    Layers that are given the same tensor share one.
    """
    draw = shuffler(seed, "reading")
    rows = [row for pool in pools for row in draw.sample(list(pool), min(EXAMPLES, len(pool)))]
    given: dict[str, Tensor] = {}
    parts: dict[tuple[str, ...], list[Tensor]] = {}
    modules = dict(backbone.model.named_modules())
    with ExitStack() as stack:
        for name in layers:
            # The experts of a parameter read all that they are given.
            if (module := modules.get(name.removesuffix(WEIGHT))) is None:
                continue
            handle = module.register_forward_pre_hook(
                lambda module, args, name=name: given.update({name: args[0]})
            )
            stack.callback(handle.remove)
        for batch in batches([row.ids for row in rows], backbone.pad, backbone.model.device):
            chosen = torch.zeros_like(batch.mask, dtype=torch.bool)
            for line, index in enumerate(batch.rows):
                length = len(rows[index].ids)
                places = draw.sample(range(length), min(TOKENS, length))
                chosen[line, [place - length for place in places]] = True
            forward(backbone, batch)
            names: dict[int, list[str]] = {}
            for name, tensor in given.items():
                # An expert is given some tokens only, in no row's order.
                if tensor.shape[:2] == chosen.shape:
                    names.setdefault(id(tensor), []).append(name)
            for alike in names.values():
                parts.setdefault(tuple(alike), []).append(given[alike[0]][chosen].float())
    inputs = {names: torch.cat(found) for names, found in parts.items()}
    return {name: whole for names, whole in inputs.items() for name in names}
