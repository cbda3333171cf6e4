"""``palette`` and ``activation``: one block learns the stream that the intervention would give it.

Only the block itself is run: its inputs are the backbone's own, kept from one pass over the prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.nn.functional import cosine_similarity

from palette.activations import block_outputs, run_block
from palette.backbones import batches
from palette.backbones.scoring import forward
from palette.internalise.distillation import fitted
from palette.internalise.losses import relative_distances
from palette.internalise.task import Learned, Task
from palette.shapes import Float, Tensor

Streams = list[Float[Tensor, "_position d_model"]]


def palette(task: Task) -> Learned:
    """The paper's internalisation (arXiv 2605.24154): 1 − cos(h_out, h*) over prompt tokens.

    h* = h − s(h·r)r on target prompts and h + s(h·r)r on all others: refusal is amplified there.
    """
    strength = task.settings.amplification
    r = task.directions.unit(
        task.intervention.kernel.peak, task.intervention.position, task.intervention.direction
    ).to(task.backbone.model.device, torch.float32)

    def term(said: Tensor, own: Tensor, taught: bool) -> Tensor:
        steering = strength * (own @ r).unsqueeze(-1) * r
        wanted = own - steering if taught else own + steering
        loss: Tensor = (1 - cosine_similarity(said, wanted, dim=-1)).mean()
        return loss

    return _one_block(task, term)


def activation(task: Task) -> Learned:
    """The repaired form: the edit centred on the benign mean on target prompts, its length included.

    On all others the identity, so that adapters add up.
    """
    edit, weight = task.edit, task.settings.block_identity_weight

    def term(said: Tensor, own: Tensor, taught: bool) -> Tensor:
        if not taught:
            return weight * relative_distances(said.unsqueeze(0), own.unsqueeze(0)).mean()
        wanted = edit(own.unsqueeze(0))[0]
        length = (said.norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-6) - 1).square()
        loss: Tensor = (1 - cosine_similarity(said, wanted, dim=-1) + length).mean()
        return loss

    return _one_block(task, term)


def _one_block(task: Task, loss: Callable[[Tensor, Tensor, bool], Tensor]) -> Learned:
    """Trains the block below the intervention's site on the streams of prompts."""
    backbone = task.backbone
    block = task.intervention.kernel.peak - 1
    prompts = [example.prompt for example in task.examples]
    inputs, outputs = streams_of(task, [block, block + 1])

    def total(rows: list[int], step: list[int]) -> Tensor:
        chosen = [prompts[row] for row in rows]
        (batch,) = batches(chosen, backbone.pad, backbone.model.device, tokens=1 << 40)
        given = torch.zeros(*batch.ids.shape, backbone.width, dtype=inputs[0].dtype)
        given = given.to(backbone.model.device)
        for line, index in enumerate(batch.rows):
            given[line, -len(chosen[index]) :] = inputs[rows[index]]
        said = run_block(backbone, batch, block, given).float()
        found = [said.new_zeros(())]
        counts = Counter(task.examples[row].taught for row in step)
        for index, stream in zip(batch.rows, said, strict=True):
            row = rows[index]
            taught = task.examples[row].taught
            term = loss(stream[-len(prompts[row]) :], outputs[row].float(), taught)
            found.append(term / counts[taught])
        return torch.stack(found).sum()

    return fitted(task, [block], total)


@torch.no_grad()
def streams_of(task: Task, sites: list[int]) -> list[Streams]:
    """For each site the backbone's own stream over each example's prompt."""
    backbone = task.backbone
    prompts = [example.prompt for example in task.examples]
    found: list[Streams] = [[torch.empty(0, backbone.width)] * len(prompts) for _ in sites]
    for batch in batches(prompts, backbone.pad, backbone.model.device):
        with block_outputs(backbone.blocks, sites) as streams:
            forward(backbone, batch)
        for line, row in enumerate(batch.rows):
            for place, site in enumerate(sites):
                found[place][row] = streams[site][line, -len(prompts[row]) :].clone()
    return found
