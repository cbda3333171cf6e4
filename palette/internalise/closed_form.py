"""``closed_form``: the edit as one least-squares problem, without a gradient step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from palette.activations import block_outputs
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.backbones import batches
from palette.backbones.scoring import forward
from palette.internalise.task import Learned, Task
from palette.shapes import Float, Tensor

RIDGE = 1e-3
"""Of the mean eigenvalue of the inputs' second moment."""


def closed_form(task: Task) -> Learned:
    """The rank-1 ΔW = r uᵀ that writes the intervention's edit where only target inputs reach.

    u minimises Σ (uᵀx − δ)² + λ‖u‖² over the inputs x to the block's last writer: δ is the edit's step
    along r at the same token of a target prompt, and zero on all other examples. u lies in the null
    space of the others' inputs: the directions that hold at most ``null_energy`` of their energy
    (AlphaSteer, arXiv 2506.07022).
    """
    kernel, backbone = task.intervention.kernel, task.backbone
    writer = backbone.writers[kernel.peak - 1][-1]
    edit = task.edit
    weight: Tensor = writer.get_parameter("weight")
    width = weight.shape[1]
    kept, second = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    first = torch.zeros(width, dtype=torch.float64)
    for taught, x, h in _inputs(task, writer, kernel.peak):
        if taught:
            # The edit moves h along r only; its step may depend on the token.
            step = ((edit(h.unsqueeze(0))[0] - h) @ edit.direction[0].to(h)).double()
            second, first = second + x.T @ x, first + x.T @ step
        else:
            kept = kept + x.T @ x
    free = null_space(kept, task.settings.null_energy)
    inner = free.T @ (second + kept) @ free
    ridge = RIDGE * inner.diagonal().mean() * torch.eye(len(inner), dtype=torch.float64)
    u = free @ torch.linalg.solve(inner + ridge, free.T @ first)
    names = {module: name for name, module in backbone.model.named_modules()}
    module = LoraModule(u.float().unsqueeze(0), edit.direction[0].float().unsqueeze(1), scale=1.0)
    adapter = Adapter({names[writer]: module}, BackboneIdentity(backbone.name, backbone.fingerprint))
    task.advance(task.settings.steps)
    return Learned(adapter, {"blocks": [kernel.peak - 1], "null_space": free.shape[1]})


def null_space(moment: Float[Tensor, "width width"], energy: float) -> Float[Tensor, "width _free"]:
    """The orthonormal directions of least energy that together hold at most this share of it."""
    values, vectors = torch.linalg.eigh(moment)
    share = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum().clamp(min=1e-30)
    free: Tensor = vectors[:, : max(1, int((share <= energy).sum()))]
    return free


@torch.no_grad()
def _inputs(task: Task, writer: nn.Module, site: int) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """For each example whether it is taught, the writer's inputs (float64), and the stream at the site.

    Of a target prompt, its own tokens; of what must not change, the reply's as well.
    """
    backbone, examples = task.backbone, task.examples
    held: list[Tensor] = []
    handle = writer.register_forward_pre_hook(lambda module, args: held.append(args[0]))
    rows = [example.prompt if example.taught else example.ids for example in examples]
    try:
        for batch in batches(rows, backbone.pad, backbone.model.device):
            held.clear()
            with block_outputs(backbone.blocks, [site]) as streams:
                forward(backbone, batch)
            for line, row in enumerate(batch.rows):
                length = len(rows[row])
                x, h = held[0][line, -length:], streams[site][line, -length:]
                yield examples[row].taught, x.double().cpu(), h.float().cpu()
    finally:
        handle.remove()
