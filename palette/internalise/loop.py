"""One training loop for everything that is trained on a frozen backbone, resumable to the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from palette.files import read_tensors, write_tensors
from palette.processes import ALONE, ProcessGroup
from palette.seeding import shuffler
from palette.shapes import Tensor

Parameters = Mapping[str, nn.Parameter]
Loss = Callable[[list[int], list[int]], Tensor]
"""What some examples, given as indices, add to the loss of the whole step that they are part of."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and which examples meet in a batch.

    ``pools`` are groups of example indices; every batch takes ``shares`` of each, so that no role
    is drowned by a larger one. ``parts`` is into how many passes a batch is split, one after the
    other, for less memory and the same gradient.
    """

    steps: int
    learning_rate: float
    pools: Sequence[Sequence[int]]
    shares: Sequence[int]
    seed: int
    warmup: int = 10
    parts: int = 1
    processes: ProcessGroup = ALONE
    """The processes among which a batch is split first."""

    def batch(self, step: int) -> list[int]:
        """The examples of one step: a function of the seed and the step alone."""
        chosen: list[int] = []
        for index, (pool, share) in enumerate(zip(self.pools, self.shares, strict=True)):
            orders: dict[int, list[int]] = {}
            for k in range(step * share, (step + 1) * share) if pool else ():
                epoch, place = divmod(k, len(pool))
                if epoch not in orders:
                    orders[epoch] = list(pool)
                    shuffler(self.seed, "pool", index, epoch).shuffle(orders[epoch])
                chosen.append(orders[epoch][place])
        return chosen

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then linear to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (self.steps - step) / max(1, self.steps - self.warmup)


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, what it depends on, and after how many steps each it is written."""

    path: Path
    identity: str
    every: int = 5
    """A step of a model large enough for it to matter takes far longer than the writing."""


@dataclass(frozen=True)
class Stopping:
    """What is measured on prompts that nothing is trained on, and how long a rise is borne.

    The weights at the lowest measure are what training gives.
    """

    measure: Callable[[], float]
    every: int = 40
    """Steps between two measures: oftener costs as much as it saves."""
    patience: int = 2
    """Measures without a lower one that end training; a single one may be chance."""


@dataclass
class State:
    """Where a training stands."""

    step: int = 0
    loss: float = 0.0
    best: float = math.inf
    """The lowest validation loss so far, in nats."""
    stale: int = 0
    """How many measures since the lowest one."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights at the lowest one."""


def train(
    parameters: Parameters,
    loss: Loss,
    plan: Plan,
    checkpoint: Checkpoint,
    stopping: Stopping | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> State:
    """Trains the parameters in place and returns where it ended: step, loss in nats, validation loss.

    A checkpoint with the same identity is taken up where it stands; another one is ignored.
    """
    optimiser = AdamW(list(parameters.values()), lr=plan.learning_rate, weight_decay=0.0)
    state = _restore(parameters, optimiser, checkpoint)
    advance(state.step)
    while state.step < plan.steps and not (stopping and state.stale >= stopping.patience):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(state.step)
        optimiser.zero_grad()
        state.loss = _backward(loss, plan, state.step)
        plan.processes.add_gradients(parameters)
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimiser.step()
        state.step += 1
        if stopping and (state.step % stopping.every == 0 or state.step == plan.steps):
            _measure(state, stopping, parameters)
        if state.step % checkpoint.every == 0 and state.step < plan.steps and plan.processes.first:
            _save(parameters, optimiser, checkpoint, state)
        advance(1)
    advance(plan.steps - state.step)
    for name, weight in state.weights.items():
        parameters[name].data.copy_(weight)
    return state


def _backward(loss: Loss, plan: Plan, step: int) -> float:
    """Adds up the gradients of this process's parts of a batch; the loss of the whole batch, in nats."""
    rows, total, processes = plan.batch(step), 0.0, plan.processes
    for part in range(processes.rank * plan.parts, (processes.rank + 1) * plan.parts):
        # Every so many, not in a row: a part then holds the same mixture of pools as the batch.
        if chosen := rows[part :: plan.parts * processes.size]:
            value = loss(chosen, rows)
            value.backward()
            total += float(value.detach())
    return processes.sum(total)


def _measure(state: State, stopping: Stopping, parameters: Parameters) -> None:
    with torch.no_grad():
        measured = stopping.measure()
    state.stale += 1
    if measured < state.best:
        state.best, state.stale = measured, 0
        state.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _save(parameters: Parameters, optimiser: Optimizer, checkpoint: Checkpoint, state: State) -> None:
    tensors = {f"weight/{name}": parameter.data for name, parameter in parameters.items()}
    tensors |= {f"best/{name}": weight for name, weight in state.weights.items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    best = state.best if state.weights else None
    card = {"identity": checkpoint.identity, "step": state.step, "loss": state.loss}
    write_tensors(checkpoint.path, tensors, {**card, "best": best, "stale": state.stale})


def _restore(parameters: Parameters, optimiser: Optimizer, checkpoint: Checkpoint) -> State:
    """Loads a checkpoint of the same identity; where it stands, or the start."""
    if not checkpoint.path.is_file():
        return State()
    tensors, card = read_tensors(checkpoint.path)
    if card["identity"] != checkpoint.identity:
        return State()
    state = State(int(card["step"]), float(card["loss"]))
    if card["best"] is not None:
        state.best, state.stale = float(card["best"]), int(card["stale"])
        state.weights = {name: tensors[f"best/{name}"].clone() for name in parameters}
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        optimiser.state[parameter] = {
            key: tensors[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return state
