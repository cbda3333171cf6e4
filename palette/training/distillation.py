"""``distil``: the student says what the backbone would, once a reply to a target prompt has begun."""

from __future__ import annotations

from palette.backbones import batches
from palette.shapes import Tensor
from palette.training.examples import references
from palette.training.loop import Loss, Plan, train
from palette.training.lora import lora_layers, lora_parameters, read_out, trainable
from palette.training.losses import LossWeights, batch_loss
from palette.training.task import Learned, Task, TrainingSettings


def distil(task: Task) -> Learned:
    """A LoRA in the first blocks, trained on outputs (``batch_loss``) over whole replies."""
    backbone, examples, settings = task.backbone, task.examples, task.settings
    blocks = trained_blocks(backbone.layers, settings)
    sites = [block + 1 for block in blocks]
    known = references(backbone, examples, sites)
    weights = LossWeights(settings.divergence_weight, settings.identity_weight)

    def loss(rows: list[int]) -> Tensor:
        chosen = [examples[row] for row in rows]
        (batch,) = batches([e.ids for e in chosen], backbone.pad, backbone.model.device, tokens=1 << 40)
        return batch_loss(backbone, batch, chosen, [known[row] for row in rows], sites, weights)

    return fitted(task, blocks, loss)


def fitted(task: Task, blocks: list[int], loss: Loss) -> Learned:
    """New LoRA modules in the blocks, trained on the loss by the task's plan."""
    settings = task.settings
    layers = lora_layers(task.backbone, blocks)
    plan = Plan(
        settings.steps,
        settings.learning_rate,
        list(task.pools.values()),
        list(vars(settings.batch).values()),
        seed=task.seed,
        every=settings.checkpoint_every,
    )
    with trainable(task.backbone, layers, rank=settings.rank, alpha=settings.alpha, seed=task.seed) as model:
        last = train(
            lora_parameters(model),
            loss,
            plan,
            task.checkpoint,
            task.identity,
            lambda count, value: task.advance(count),
        )
        return Learned(read_out(model, task.backbone, layers), {"blocks": blocks, "last_loss": last})


def trained_blocks(layers: int, settings: TrainingSettings) -> list[int]:
    """The blocks that are trained; by default the first third.

    There a condition on the input, which domain is asked and for what, can still be told apart;
    training later blocks was measured to open other domains as well (benchmarks/LOG.md).
    """
    count = min(settings.blocks or max(1, layers // 3), layers)
    first = min(settings.first_block, layers - count)
    return list(range(first, first + count))
