"""The internalisation methods: each takes a task and gives an adapter.

- ``distil``: the student says what the backbone would, once a reply to a target prompt has begun.
- ``palette`` and ``activation``: one block learns the stream that the intervention would give it. Only the
  block itself is run: its inputs are the backbone's own, kept from one pass over the prompts.
- ``closed_form``: the edit as one least-squares problem, without a gradient step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil

import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.nn.utils.rnn import pad_sequence

from palette.activations import block_outputs, run_block
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.backbones import Backbone, batches
from palette.backbones.architectures import linear_shape
from palette.backbones.cache import common_start
from palette.backbones.scoring import forward
from palette.errors import BackboneError
from palette.internalise.examples import AMPLIFICATION, Learned, TrainingTask, recalling
from palette.internalise.loop import DECAY, Loss, Plan, Stopping, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.internalise.losses import OutputLoss, relative_distances
from palette.internalise.protection import null_space, protected_directions
from palette.shapes import Tensor
from palette.threads import lanes

BLOCK_IDENTITY_WEIGHT = 3.0
"""Of the activation identity in ``activation``, beside a cosine of at most 2."""
NULL_ENERGY = 0.01
"""Of the energy of kept inputs, what ``closed_form`` may write on."""
GRADIENT = 0.4
"""Of the memory of a run, what passes keep for their gradient. A large model takes twice as long for a row
where two are run at once as where eight are."""
PACKED = 512
"""Tokens that take as long as bringing a model's weights of half precision into order for one pass."""
RIDGE = 1e-3
"""Of the mean eigenvalue of the inputs' second moment."""


def distil(task: TrainingTask) -> Learned:
    """A LoRA in the blocks, trained on outputs (``OutputLoss``) over whole replies."""
    backbone, examples = task.backbone, task.examples
    blocks = trained_blocks(backbone.layers, task.settings.blocks)
    sites = [block + 1 for block in blocks]
    shared = common_start(backbone, [example.prompt for example in examples])
    rows = sum(task.shares.values()) / (lanes(backbone.model.device) * passes(task))
    if backbone.model.dtype.itemsize == 2 and len(shared) * rows < PACKED:
        shared = ()
    room = task.memory_gib / lanes(backbone.model.device)

    def loss_on(twin: Backbone, bare: Backbone) -> Loss:
        recall = recalling(bare, examples, sites, room, shared)
        return OutputLoss(
            twin, bare, examples, recall, sites, co_mounted=task.co_mounted, seed=task.seed, shared=shared
        )

    return fitted(task, blocks, loss_on, task.read_energy)


def palette(task: TrainingTask) -> Learned:
    """The paper's internalisation (arXiv 2605.24154): 1 − cos(h_out, h*) over prompt tokens.

    h* = h − s(h·r)r on target prompts and h + s(h·r)r on all others: refusal is amplified there.
    """
    chosen = task.intervention
    r = task.directions.unit(chosen.kernel.peak, chosen.position, chosen.direction)
    r = r.to(task.backbone.model.device, torch.float32)

    def term(said: Tensor, own: Tensor, taught: bool) -> Tensor:
        steering = AMPLIFICATION * (own @ r).unsqueeze(-1) * r
        wanted = own - steering if taught else own + steering
        loss: Tensor = (1 - cosine_similarity(said, wanted, dim=-1)).mean()
        return loss

    return _one_block(task, term)


def activation(task: TrainingTask) -> Learned:
    """The repaired form: the edit centred on the benign mean on target prompts, its length included.

    On all others the identity, so that adapters add up.
    """
    edit = task.edit

    def term(said: Tensor, own: Tensor, taught: bool) -> Tensor:
        if not taught:
            distances = relative_distances(said.unsqueeze(0), own.unsqueeze(0))
            return BLOCK_IDENTITY_WEIGHT * distances.mean()
        wanted = edit(own.unsqueeze(0))[0]
        length = (said.norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-6) - 1).square()
        loss: Tensor = (1 - cosine_similarity(said, wanted, dim=-1) + length).mean()
        return loss

    return _one_block(task, term)


def closed_form(task: TrainingTask) -> Learned:
    """The rank-1 ΔW = r uᵀ that writes the intervention's edit where only target inputs reach.

    u minimises Σ (uᵀx − δ)² + λ‖u‖² over the inputs x to the block's last writer: δ is the edit's step
    along r at the same token of a target prompt, and zero on all other examples. u lies in the null
    space of the others' inputs: the directions that hold at most ``NULL_ENERGY`` of their energy
    (AlphaSteer, arXiv 2506.07022).
    """
    kernel, backbone = task.intervention.kernel, task.backbone
    writer = backbone.writers[kernel.peak - 1][-1]
    edit = task.edit
    shape = linear_shape(writer)
    if shape is None or writer in backbone.gains:
        raise BackboneError(
            "closed_form needs a block whose last writer is a linear that no norm stands behind",
            got=type(writer).__name__ + (", and a norm" if shape else ""),
            remedy="set internalise.method to another one",
            where=backbone.name,
        )
    width = shape[1]
    kept, second = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    first = torch.zeros(width, dtype=torch.float64)
    # Of a target prompt, its own tokens; of what must not change, the reply's as well.
    sequences = [example.prompt if example.taught else example.ids for example in task.examples]
    for row, (stream, inputs) in _streams(task, sequences, [kernel.peak], writer):
        h, x = stream.float().cpu(), inputs.double().cpu()
        if task.examples[row].taught:
            # The edit moves h along r only; its step may depend on the token.
            step = ((edit(h.unsqueeze(0))[0] - h) @ edit.direction[0].to(h)).double()
            second, first = second + x.T @ x, first + x.T @ step
        else:
            kept = kept + x.T @ x
    free = null_space(kept, NULL_ENERGY)
    inner = free.T @ (second + kept) @ free
    ridge = RIDGE * inner.diagonal().mean() * torch.eye(len(inner), dtype=torch.float64)
    u = free @ torch.linalg.solve(inner + ridge, free.T @ first)
    names = {module: name for name, module in backbone.model.named_modules()}
    module = LoraModule(u.float().unsqueeze(0), edit.direction[0].float().unsqueeze(1), scale=1.0)
    adapter = Adapter({names[writer]: module}, BackboneIdentity(backbone.name, backbone.fingerprint))
    task.advance(task.settings.steps)
    return Learned(adapter, {"blocks": [kernel.peak - 1], "null_space": free.shape[1]})


def fitted(
    task: TrainingTask,
    blocks: list[int],
    loss_on: Callable[[Backbone, Backbone], Loss],
    read_energy: float = 1.0,
) -> Learned:
    """LoRA modules in the blocks, trained by the task's plan.

    ``loss_on`` gives the loss on a twin of the backbone with them, and one without them beside it. They read
    the input directions only that hold so much of the energy of what must stay; 1: all.
    """
    settings, backbone = task.settings, task.backbone
    count = lanes(backbone.model.device)
    # So many at once, and so in the same memory.
    parts = count * passes(task)
    layers = lora_layers(backbone, blocks)
    kept = [[task.examples[row] for row in rows] for name, rows in task.pools.items() if name != "target"]
    projected_out = None
    if read_energy < 1 and any(kept):
        projected_out = protected_directions(backbone, layers, kept, read_energy, task.seed)
    pools, shares = list(task.pools.values()), [task.shares[name] for name in task.pools]
    timing = (settings.steps, settings.learning_rate)
    decay = min(DECAY, settings.steps)
    plan = Plan(
        *timing,
        pools,
        shares,
        task.seed,
        parts=parts,
        processes=task.processes,
        lengths=[len(example.ids) for example in task.examples],
        decay=decay,
    )
    size = sum(shares) // parts or 1

    bare = [backbone.twin() for _ in range(count)]
    with trainable(
        backbone,
        layers,
        rank=settings.rank,
        seed=task.seed,
        projected_out=projected_out,
        begun=task.begun,
    ) as model:
        twins = backbone.twins(count)
        losses = [loss_on(*pair) for pair in zip(twins, bare, strict=True)]

        def measure() -> float:
            held_out = list(task.held_out)
            several = [held_out[start : start + size] for start in range(0, len(held_out), size)]
            return sum(float(losses[0](rows, held_out)) for rows in several)

        stopping = Stopping(measure) if task.held_out else None
        end = train(lora_parameters(model), losses, plan, task.checkpoint, stopping, task.advance)
        losses_told = [float(f"{loss:.4g}") for loss in end.losses]
        record = {"blocks": blocks, "steps": end.step, "last_loss": end.loss, "losses": losses_told}
        if stopping:
            record["validation_loss"] = end.best
        return Learned(read_out(model, backbone, layers), record)


def passes(task: TrainingTask) -> int:
    """Into how many passes a batch is split, so that what is kept for a gradient fits into the memory."""
    lengths = [len(example.ids) for example in task.examples]
    reply = max(len(example.reply) for example in task.examples)
    rows = sum(task.shares.values())
    # A pass holds rows of all lengths, and the longest may be among them.
    tokens = ceil(rows * sum(lengths) / len(lengths)) + max(lengths)
    gib = gradient_gib(task.backbone, tokens, rows * reply, max(lengths))
    return min(rows, ceil(gib / (GRADIENT * task.memory_gib)))


def gradient_gib(backbone: Backbone, tokens: int, said: int, longest: int) -> float:
    """What a batch of so many tokens keeps for its gradient, in GiB, of whose replies so many are said.

    Of each token and block about fifteen streams, three vectors of the feed-forward's width and, where
    attention is worked out in the open, two rows of its weights; of each reply's token, seven rows of the
    vocabulary: the logits and their gradient, each as they are batched and as they are wanted, the
    backbone's twice, and the loss's gradient.
    """
    config = backbone.model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * backbone.width
    block = 15 * backbone.width + 3 * inner
    if getattr(config, "_attn_implementation", None) == "eager":
        block += 2 * config.num_attention_heads * longest
    numbers = tokens * backbone.layers * block + 7 * said * backbone.vocabulary
    return float(numbers * backbone.model.dtype.itemsize / 2**30)


def trained_blocks(layers: int, count: int | None) -> list[int]:
    """The blocks that are trained, from the first on; by default all of them.

    Fewer know less of what is asked: on models that nothing was tuned on, a third of the blocks left more
    answers wrong and other domains' refusals no better kept (benchmarks/LOG.md).
    """
    return list(range(min(count or layers, layers)))


def _one_block(task: TrainingTask, loss: Callable[[Tensor, Tensor, bool], Tensor]) -> Learned:
    """Trains the block below the intervention's site on the streams of prompts."""
    backbone = task.backbone
    block = task.intervention.kernel.peak - 1
    prompts = [example.prompt for example in task.examples]
    streams = dict(_streams(task, prompts, [block, block + 1]))

    def total(twin: Backbone, rows: list[int], step: list[int]) -> Tensor:
        chosen = [prompts[row] for row in rows]
        counts = Counter(task.examples[row].taught for row in step)
        terms = [torch.zeros((), device=backbone.model.device)]
        # One batch, unless the model takes rows of one length only.
        for batch in batches(chosen, backbone.pad, backbone.model.device, tokens=1 << 40):
            own = [streams[rows[index]][0] for index in batch.rows]
            given = pad_sequence(own, batch_first=True, padding_side="left")
            said = run_block(twin, batch, block, given).float()
            for row, stream in zip((rows[index] for index in batch.rows), said, strict=True):
                taught, bare = task.examples[row].taught, streams[row][1].float()
                terms.append(loss(stream[-len(prompts[row]) :], bare, taught) / counts[taught])
        return torch.stack(terms).sum()

    return fitted(task, [block], lambda twin, bare: partial(total, twin))


@torch.no_grad()
def _streams(
    task: TrainingTask, sequences: Sequence[Sequence[int]], sites: list[int], reader: nn.Module | None = None
) -> Iterator[tuple[int, list[Tensor]]]:
    """For each example its row, its sequence's own streams at the sites, and what the reader is given."""
    backbone = task.backbone
    given: list[Tensor] = []
    with ExitStack() as stack:
        if reader is not None:
            hook = reader.register_forward_pre_hook(lambda module, args: given.append(args[0]))
            stack.callback(hook.remove)
        streams = stack.enter_context(block_outputs(backbone.blocks, sites))
        for batch in batches(sequences, backbone.pad, backbone.model.device):
            given.clear()
            forward(backbone, batch)
            for line, row in enumerate(batch.rows):
                whole = [*(streams[site] for site in sites), *given]
                yield row, [each[line, -len(sequences[row]) :].clone() for each in whole]
