"""``distil``: the student says what the backbone would, once a reply to a target prompt has begun."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from palette.internalise.examples import recalling, shared_beginning
from palette.internalise.loop import Loss, Plan, Stopping, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable, untrained
from palette.internalise.losses import OutputLoss
from palette.internalise.null_space import protected_directions
from palette.internalise.settings import TrainingSettings
from palette.internalise.task import Learned, Task
from palette.shapes import Tensor


def distil(task: Task) -> Learned:
    """A LoRA in the first blocks, trained on outputs (``OutputLoss``) over whole replies."""
    backbone, settings = task.backbone, task.settings
    blocks = trained_blocks(backbone.layers, settings)
    sites = [block + 1 for block in blocks]
    head = shared_beginning(backbone, task.examples)
    most = settings.recalled_gib
    recall = recalling(backbone, task.examples, sites, most, lambda: untrained(backbone), head)
    loss = OutputLoss(backbone, task.examples, recall, sites, settings, task.co_mounted, task.seed, head)
    return fitted(task, blocks, loss, settings.read_energy)


def fitted(task: Task, blocks: list[int], loss: Loss, read_energy: float = 1.0) -> Learned:
    """New LoRA modules in the blocks, trained on the loss by the task's plan.

    They read the input directions only that hold so much of the energy of what must stay; 1: all.
    """
    settings = task.settings
    layers = lora_layers(task.backbone, blocks)
    projected_out = _barred(task, layers, read_energy) if read_energy < 1 else {}
    plan = Plan(
        settings.steps,
        settings.learning_rate,
        list(task.pools.values()),
        list(vars(settings.batch).values()),
        seed=task.seed,
        parts=settings.accumulation,
        processes=task.processes,
    )
    stopping = Stopping(measure_of(task, loss), settings.validate_every, settings.patience)
    shape = {"rank": settings.rank, "alpha": settings.alpha, "seed": task.seed}
    with trainable(task.backbone, layers, **shape, projected_out=projected_out) as model:
        end = train(
            lora_parameters(model), loss, plan, task.checkpoint, stopping if task.held else None, task.advance
        )
        record = {"blocks": blocks, "steps": end.step, "last_loss": end.loss}
        if task.held:
            record["validation_loss"] = end.best
        return Learned(read_out(model, task.backbone, layers), record)


def _barred(task: Task, layers: list[str], energy: float) -> dict[str, Tensor]:
    kept = [[task.examples[row] for row in pool] for name, pool in task.pools.items() if name != "target"]
    return protected_directions(task.backbone, layers, kept, energy, task.seed)


def measure_of(task: Task, loss: Loss) -> Callable[[], float]:
    """What gives the loss over the held examples, in nats, a batch's number of them at a time."""
    rows = list(task.held)
    size = sum(vars(task.settings.batch).values()) // task.settings.accumulation or 1

    def measure() -> float:
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return sum(float(loss(part, rows)) for part in parts)

    return measure


def trained_blocks(layers: int, settings: TrainingSettings) -> list[int]:
    """The blocks that are trained; by default the first third.

    There a condition on the input, which domain is asked and for what, can still be told apart;
    training later blocks was measured to open other domains as well, and fewer to tell domains apart
    less well, though adapters of one block add up better: what one writes in a block, the others read
    in the next (benchmarks/LOG.md).
    """
    count = min(settings.blocks or ceil(layers / 3), layers)
    first = min(settings.first_block, layers - count)
    return list(range(first, first + count))
