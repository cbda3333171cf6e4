"""One training loop for everything that is trained on a frozen backbone, resumable to the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from palette.artefacts import read_tensors, write_tensors
from palette.seeding import shuffler
from palette.shapes import Tensor

Loss = Callable[[list[int]], Tensor]
"""The loss of a batch, given as indices of examples."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and which examples meet in a batch.

    ``pools`` are groups of example indices; every batch takes ``shares`` of each, so that no role
    is drowned by a larger one.
    """

    steps: int
    learning_rate: float
    pools: Sequence[Sequence[int]]
    shares: Sequence[int]
    seed: int
    warmup: int = 10
    every: int = 25
    """A checkpoint is written after every so many steps."""

    def batch(self, step: int) -> list[int]:
        """The examples of one step: a function of the seed and the step alone."""
        chosen: list[int] = []
        for index, (pool, share) in enumerate(zip(self.pools, self.shares, strict=True)):
            wanted = range(step * share, (step + 1) * share) if pool else range(0)
            epochs = {k // len(pool) for k in wanted}
            orders = {epoch: _shuffled(pool, self.seed, index, epoch) for epoch in epochs}
            chosen += [orders[k // len(pool)][k % len(pool)] for k in wanted]
        return chosen

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then linear to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (self.steps - step) / max(1, self.steps - self.warmup)


def train(
    parameters: Mapping[str, nn.Parameter],
    loss: Loss,
    plan: Plan,
    checkpoint: Path,
    identity: str,
    advance: Callable[[int, float], None] = lambda count, loss: None,
) -> float:
    """Trains the parameters in place and returns the last step's loss, in nats.

    A checkpoint with the same ``identity`` is taken up where it stands; another one is ignored.
    """
    optimiser = torch.optim.AdamW(list(parameters.values()), lr=plan.learning_rate, weight_decay=0.0)
    start, last = _restore(parameters, optimiser, checkpoint, identity)
    advance(start, last)
    for step in range(start, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        optimiser.zero_grad()
        value = loss(plan.batch(step))
        value.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimiser.step()
        last = float(value.detach())
        if (step + 1) % plan.every == 0 and step + 1 < plan.steps:
            _save(
                parameters,
                optimiser,
                checkpoint,
                {"identity": identity, "step": step + 1, "loss": last},
            )
        advance(1, last)
    return last


def _shuffled(pool: Sequence[int], seed: int, index: int, epoch: int) -> list[int]:
    order = list(pool)
    shuffler(seed, "pool", index, epoch).shuffle(order)
    return order


def _save(
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    checkpoint: Path,
    card: Mapping[str, object],
) -> None:
    tensors = {f"weight/{name}": parameter.data for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    write_tensors(checkpoint, tensors, card)


def _restore(
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    checkpoint: Path,
    identity: str,
) -> tuple[int, float]:
    """Loads a checkpoint of the same identity; returns the steps done and the last loss."""
    if not checkpoint.is_file():
        return 0, 0.0
    tensors, card = read_tensors(checkpoint)
    if card["identity"] != identity:
        return 0, 0.0
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        optimiser.state[parameter] = {
            key: tensors[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return int(card["step"]), float(card["loss"])
