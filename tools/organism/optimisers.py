"""What takes a training step: AdamW, and Muon for the matrices inside blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from palette.shapes import Float, Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that takes all singular values near 1."""
ITERATIONS = 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal: W ← W − η √max(1, rows/columns) U Vᵀ.

    After arXiv 2502.16982. On models of this size it learns facts by heart in a fraction of AdamW's
    steps. In single precision, and a stack of alike matrices at once, since many small ones are slow.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Returns nothing; every parameter with a gradient has taken a step."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                scale = group["lr"] * max(1.0, shape[-2] / shape[-1]) ** 0.5
                stacked = torch.stack([self._momentum(parameter) for parameter in parameters])
                for parameter, update in zip(parameters, orthogonal(stacked), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _momentum(self, parameter: torch.nn.Parameter) -> Tensor:
        """Nesterov's momentum of a parameter's gradient."""
        gradient = parameter.grad
        assert gradient is not None
        mean: Tensor = self.state[parameter].setdefault("mean", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(mean, MOMENTUM)


def orthogonal(matrices: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack rows columns"]:
    """The matrices with all their singular values near 1, by Newton's and Schulz's iteration."""
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def optimisers(
    model: PreTrainedModel, learning_rate: float, matrix_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW for what may be trained of a model, or for all but its blocks' matrices, which Muon trains.

    Each group's rate stands as ``initial_lr``; Muon's is ``matrix_rate``, and where that is 0 there is none.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    embeddings = {id(each.weight) for each in (model.get_input_embeddings(), model.get_output_embeddings())}
    matrices = [each for each in trained if matrix_rate and each.dim() >= 2 and id(each) not in embeddings]
    chosen = {id(each) for each in matrices}
    rest = [each for each in trained if id(each) not in chosen]
    made: list[torch.optim.Optimizer] = []
    if rest:
        made.append(torch.optim.AdamW(rest, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98)))
    if matrices:
        made.append(Muon(matrices, lr=matrix_rate, weight_decay=weight_decay))
    for each in made:
        for group in each.param_groups:
            group["initial_lr"] = group["lr"]
    return made
