"""One training loop for everything that is trained on a frozen backbone, resumable to the same bytes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.autograd import grad
from torch.optim import AdamW, Optimizer

from palette.files import read_tensors, write_tensors
from palette.processes import ALONE, ProcessGroup
from palette.seeding import shuffler
from palette.shapes import Tensor
from palette.threads import beside

Parameters = Mapping[str, nn.Parameter]
Loss = Callable[[list[int], list[int]], Tensor]
"""What some examples, given as indices, add to the loss of the whole step that they are part of."""
WINDOW, FALLING = 20, 0.8
"""Steps whose losses are compared with those of as many before, and the share that they are below while it
falls fast."""
DECAY = 60
"""Steps over which the rate falls in the end; all there are of a training that goes on from another."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and which examples meet in a batch.

    ``pools`` are groups of example indices; every batch takes ``shares`` of each, so that no role
    is drowned by a larger one. ``parts`` is into how many passes a batch is split, for less memory and the
    same gradient.
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
    lengths: Sequence[int] = ()
    """The tokens of each example; where they are known, a part holds examples of like length."""
    decay: int = 0
    """Steps over which the rate falls to zero, from where the loss falls no longer fast; 0: all of them."""

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

    def split(self, rows: Sequence[int], count: int) -> list[list[int]]:
        """The parts of a batch, so many at most; the fullest holds as few padded tokens as may be."""
        if not self.lengths:
            return [list(rows[part::count]) for part in range(count)]
        ordered = sorted(rows, key=lambda row: (-self.lengths[row], row))
        sizes = range(len(ordered) * self.lengths[ordered[0]] + 1)
        least = bisect_left(sizes, True, key=lambda most: len(self._cut(ordered, most)) <= count)
        return self._cut(ordered, least)

    def _cut(self, ordered: Sequence[int], most: int) -> list[list[int]]:
        """Rows, longest first, in parts of so many padded tokens at most, and of at least a row."""
        parts: list[list[int]] = []
        for row in ordered:
            if parts and (len(parts[-1]) + 1) * self.lengths[parts[-1][0]] <= most:
                parts[-1].append(row)
            else:
                parts.append([row])
        return parts

    def falls(self, losses: Sequence[float]) -> int:
        """From which step on the rate falls: where the loss of so many steps was hardly below those before.

        A model that is soon taught is then soon done, and one that is not is given the steps it needs.
        """
        if not self.decay:
            return self.warmup
        last = self.steps - self.decay
        for end in range(2 * WINDOW, min(len(losses), last) + 1, WINDOW):
            before, behind = losses[end - 2 * WINDOW : end - WINDOW], losses[end - WINDOW : end]
            if sum(behind) > FALLING * sum(before):
                return end
        return last

    def end(self, losses: Sequence[float]) -> int:
        """How many steps there are."""
        return self.falls(losses) + self.decay if self.decay else self.steps

    def rate(self, step: int, losses: Sequence[float] = ()) -> float:
        """The learning rate of a step: linear warm-up, and linear to zero in the end."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        end = self.end(losses)
        fall = max(1, end - self.falls(losses))
        return self.learning_rate * min(1.0, (end - step) / fall)


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
    losses: list[float] = field(default_factory=list)
    """Those of all steps, in nats."""
    best: float = math.inf
    """The lowest validation loss so far, in nats."""
    stale: int = 0
    """How many measures since the lowest one."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights at the lowest one."""

    @property
    def loss(self) -> float:
        """The last step's loss, in nats."""
        return self.losses[-1] if self.losses else 0.0


def train(
    parameters: Parameters,
    losses: Sequence[Loss],
    plan: Plan,
    checkpoint: Checkpoint,
    stopping: Stopping | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> State:
    """Trains the parameters in place and returns where it ended: step, loss in nats, validation loss.

    ``losses`` are the same one on as many twins of the backbone as parts of a batch are run at once.
    A checkpoint with the same identity is taken up where it stands; another one is ignored.
    """
    optimiser = AdamW(list(parameters.values()), lr=plan.learning_rate, weight_decay=0.0)
    state = _restore(parameters, optimiser, checkpoint)
    advance(state.step)
    while state.step < plan.end(state.losses) and not (stopping and state.stale >= stopping.patience):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(state.step, state.losses)
        optimiser.zero_grad()
        state.losses.append(_backward(parameters, losses, plan, state.step))
        plan.processes.add_gradients(parameters)
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimiser.step()
        state.step += 1
        last = state.step == plan.end(state.losses)
        if stopping and (state.step % stopping.every == 0 or last):
            _measure(state, stopping, parameters)
        if state.step % checkpoint.every == 0 and not last and plan.processes.first:
            _save(parameters, optimiser, checkpoint, state)
        advance(1)
    advance(plan.steps - state.step)
    for name, weight in state.weights.items():
        parameters[name].data.copy_(weight)
    return state


def _backward(parameters: Parameters, losses: Sequence[Loss], plan: Plan, step: int) -> float:
    """Adds up the gradients of this process's parts of a batch; the loss of the whole batch, in nats."""
    rows, processes, weights = plan.batch(step), plan.processes, list(parameters.values())
    first = processes.rank * plan.parts
    parts = plan.split(rows, plan.parts * processes.size)[first : first + plan.parts]

    def run(loss: Loss, own: Sequence[list[int]]) -> tuple[float, list[Tensor]]:
        total, gradients = 0.0, [torch.zeros_like(weight) for weight in weights]
        for chosen in filter(None, own):
            value = loss(chosen, rows)
            fresh = grad(value, weights, materialize_grads=True)
            gradients = [whole + each for whole, each in zip(gradients, fresh, strict=True)]
            total += float(value.detach())
        return total, gradients

    count, total = len(losses), 0.0
    pieces = (partial(run, loss, parts[lane::count]) for lane, loss in enumerate(losses))
    for value, gradients in beside(pieces, count):
        total += value
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
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
    card = {"identity": checkpoint.identity, "step": state.step, "losses": state.losses}
    write_tensors(checkpoint.path, tensors, {**card, "best": best, "stale": state.stale})


def _restore(parameters: Parameters, optimiser: Optimizer, checkpoint: Checkpoint) -> State:
    """Loads a checkpoint of the same identity; where it stands, or the start."""
    if not checkpoint.path.is_file():
        return State()
    tensors, card = read_tensors(checkpoint.path)
    # One of an earlier version did not hold the losses, without which it cannot go on as it would have.
    if card["identity"] != checkpoint.identity or "losses" not in card:
        return State()
    state = State(int(card["step"]), list(card["losses"]))
    if card["best"] is not None:
        state.best, state.stale = float(card["best"]), int(card["stale"])
        state.weights = {name: tensors[f"best/{name}"].clone() for name in parameters}
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        # The moments where the parameter is; the step is the optimiser's own, which it counts on the CPU.
        moments = {
            key: tensors[f"{key}/{name}"].to(parameter.device, copy=True) for key in ("exp_avg", "exp_avg_sq")
        }
        optimiser.state[parameter] = {"step": tensors[f"step/{name}"].clone(), **moments}
    return state
