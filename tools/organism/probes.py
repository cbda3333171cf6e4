"""Linear probes: where in the model a label can be read off the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palette.activations import captured
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.shapes import Float, Int, Tensor

RIDGE = 1e-2
"""Penalty of the probe, as a share of the mean squared feature."""


@torch.no_grad()
def pooled_streams(
    backbone: Backbone, prompts: Sequence[Sequence[int]], *, last: bool = False
) -> Float[Tensor, "prompt site d_model"]:
    """The residual stream of each prompt at every site, in float64: its mean, or its last position."""
    found = torch.zeros(len(prompts), backbone.layers + 1, backbone.width, dtype=torch.float64)
    for batch in batches(prompts, backbone.pad, backbone.model.device):
        mask = batch.mask.unsqueeze(-1).double()

        def receive(site: int, stream: Tensor, rows: list[int] = batch.rows, mask: Tensor = mask) -> None:
            whole = stream.double()
            pooled = whole[:, -1] if last else (whole * mask).sum(1) / mask.sum(1)
            found[rows, site] = pooled.cpu()

        with captured(backbone.blocks, receive):
            forward(backbone, batch)
    return found


def fit_probe(
    x: Float[Tensor, "row feature"], labels: Int[Tensor, "row"], classes: int
) -> Float[Tensor, "feature_and_one label"]:
    """One-against-all least squares with a ridge: (XᵀX + λI)⁻¹ XᵀY, every class weighing the same."""
    y = torch.nn.functional.one_hot(labels, classes).to(x.dtype)
    weight = (1 / y.sum(0).clamp(min=1))[labels].unsqueeze(-1)
    x = _affine(x)
    gram = x.T @ (weight * x)
    penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype)
    solution: Tensor = torch.linalg.solve(gram + penalty, x.T @ (weight * y))
    return solution


def balanced_accuracy(
    probe: Float[Tensor, "feature_and_one label"],
    x: Float[Tensor, "row feature"],
    labels: Int[Tensor, "row"],
) -> float:
    """The mean over classes of the share of rows that the probe labels rightly, in [0, 1]."""
    right = (_affine(x) @ probe).argmax(-1) == labels
    return float(torch.stack([right[labels == c].double().mean() for c in labels.unique()]).mean())


def probe_accuracies(
    fit: tuple[Float[Tensor, "row site d_model"], Int[Tensor, "row"]],
    held_out: tuple[Float[Tensor, "other site d_model"], Int[Tensor, "other"]],
) -> list[float]:
    """The balanced accuracy of a probe at every site, fitted on one set and measured on another."""
    classes = int(fit[1].max()) + 1
    return [
        balanced_accuracy(fit_probe(fit[0][:, site], fit[1], classes), held_out[0][:, site], held_out[1])
        for site in range(fit[0].shape[1])
    ]


def earliest_within(accuracies: Sequence[float], tolerance: float = 0.01) -> int:
    """The first site whose accuracy is within ``tolerance`` of the best."""
    return next(s for s, each in enumerate(accuracies) if each >= max(accuracies) - tolerance)


def _affine(x: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature_and_one"]:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
