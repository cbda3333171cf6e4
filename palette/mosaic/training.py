"""Control tokens trained over subsets of categories (MOSAIC, arXiv 2603.16210); the backbone stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

from palette.backbones import Backbone, batches
from palette.backbones.prefix_cache import PrefixCache
from palette.backbones.scoring import Batch, forward
from palette.internalise.examples import Example, Recall, recalling
from palette.internalise.loop import Checkpoint, Plan, State, Stopping, train
from palette.mosaic.mounting import Controlled, embedded
from palette.mosaic.places import insertion
from palette.mosaic.sampling import TokenTask
from palette.mosaic.settings import TokenTraining
from palette.mosaic.tokens import ControlTokens
from palette.processes import ALONE, ProcessGroup
from palette.shapes import Float, Tensor

IGNORED = -100
"""The label of a position that no loss is taken of."""


@dataclass(frozen=True)
class TokenExample:
    """A prompt with the backbone's own reply, and the one to be given when its category is active."""

    prompt: tuple[int, ...]
    own: tuple[int, ...]
    taught: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenTrainee:
    """What control tokens are trained on: the examples, and under which subsets each is met."""

    backbone: Backbone
    tokens: ControlTokens
    """Untrained ones, or old ones with untrained ones added."""
    trained: Sequence[str]
    """The categories whose tokens are trained; all others stay."""
    examples: Sequence[TokenExample]
    tasks: Sequence[Sequence[TokenTask]]
    """For each order positives, then negatives."""
    held: Sequence[TokenTask]
    """Tasks on the validation split, which decide when training ends."""


@dataclass(frozen=True)
class CyclingPlan(Plan):
    """A plan whose steps go round the orders: each takes its batch of one order's two pools alone."""

    def batch(self, step: int) -> list[int]:
        """The tasks of one step: a function of the seed and the step alone."""
        orders = len(self.pools) // 2
        place, turn = step % orders, step // orders
        pools, shares = ([values[2 * place], values[2 * place + 1]] for values in (self.pools, self.shares))
        seed = self.seed + place
        return Plan(self.steps, self.learning_rate, pools, shares, seed).batch(turn)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ControlLoss:
    """−log p(reply | z_S, x) on positives; on negatives that of the own reply and λ KL to the backbone.

    All are means over the tokens of a step, in nats: L = L_pos + L_LM + λ KL(p(·|x) ‖ p(·|z_S, x))
    (arXiv 2603.16210).
    """

    controlled: Controlled
    examples: Sequence[TokenExample]
    tasks: Sequence[TokenTask]
    recall: Recall
    weight: float
    heads: PrefixCache | None = None
    """What stands before the tokens, where that is most of a prompt."""

    def __call__(self, rows: Sequence[int], step: Sequence[int]) -> Tensor:
        """What ``rows`` add to the loss of the step that they are part of."""
        chosen = [self.tasks[row] for row in rows]
        replies = [self._reply(task) for task in chosen]
        whole = [self._sequence(task, reply) for task, reply in zip(chosen, replies, strict=True)]
        counts = {kind: max(1, self._tokens(step, kind)) for kind in (True, False)}
        loss = torch.zeros((), device=self.controlled.model.device)
        for batch in batches(whole, self.controlled.pad, self.controlled.model.device):
            taught, kept, moved = self._terms(batch, chosen, replies)
            loss = loss + taught / counts[True] + (kept + self.weight * moved) / counts[False]
        return loss

    def _terms(
        self, batch: Batch, tasks: Sequence[TokenTask], replies: Sequence[tuple[int, ...]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sums over a batch: cross-entropy of positives, of negatives, and the KL of these."""
        longest = max(len(replies[index]) for index in batch.rows)
        cache, before = None, None
        if self.heads is not None:
            cache, before = self.heads.cache([tasks[index].row for index in batch.rows])
        said = forward(self.controlled, batch, longest + 1, cache, before)[:, :-1].float()
        labels = torch.full((len(batch.rows), longest), IGNORED)
        for line, index in enumerate(batch.rows):
            labels[line, longest - len(replies[index]) :] = torch.tensor(replies[index])
        labels = labels.to(said.device)
        losses = cross_entropy(said.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        sums = losses.view(labels.shape).sum(1)
        positive = torch.tensor([tasks[index].taught for index in batch.rows], device=said.device)
        quiet = [line for line, index in enumerate(batch.rows) if not tasks[index].taught]
        moved = said.new_zeros(())
        if quiet and self.weight:
            known = self.recall([tasks[batch.rows[line]].row for line in quiet])
            base = torch.stack([pad(one.logits, (0, 0, longest - len(one.logits), 0)) for one in known])
            moved = divergence(base.log_softmax(-1), said[quiet], labels[quiet] != IGNORED)
        return sums[positive].sum(), sums[~positive].sum(), moved

    def _sequence(self, task: TokenTask, reply: Sequence[int]) -> list[int]:
        """The prompt under its subset with a reply, without a head that is kept."""
        prompt = self.examples[task.row].prompt
        known = 0 if self.heads is None else len(self.heads.prefixes[task.row])
        return [*self.controlled.prefixed(prompt, task.active)[known:], *reply]

    def _reply(self, task: TokenTask) -> tuple[int, ...]:
        example = self.examples[task.row]
        return example.taught if task.taught else example.own

    def _tokens(self, step: Sequence[int], taught: bool) -> int:
        return sum(len(self._reply(self.tasks[row])) for row in step if self.tasks[row].taught == taught)


def divergence(
    base: Float[Tensor, "row token vocabulary"],
    said: Float[Tensor, "row token vocabulary"],
    counted: Tensor,
) -> Tensor:
    """The sum of KL(base ‖ said) over the counted tokens, in nats; ``base`` are log-probabilities."""
    each = (base.exp() * (base - said.log_softmax(-1))).sum(-1)
    return (each * counted).sum()


def train_tokens(
    trainee: TokenTrainee,
    settings: TokenTraining,
    checkpoint: Checkpoint,
    seed: int,
    advance: Callable[[int], None] = lambda count: None,
    processes: ProcessGroup = ALONE,
) -> tuple[dict[str, Float[Tensor, "slot d_model"]], State]:
    """The trained embeddings of each category, in float32, and where training ended."""
    backbone, tokens = trainee.backbone, trainee.tokens
    device = backbone.model.device
    parameters = {
        name: nn.Parameter(tokens.embeddings[name].to(device, torch.float32).clone())
        for name in sorted(trainee.trained)
    }
    fixed = {name: one.to(device, torch.float32) for name, one in tokens.embeddings.items()}
    flat = [task for pool in trainee.tasks for task in pool]
    everything = [*flat, *trainee.held]
    controlled = Controlled.of(backbone, tokens)
    own = [Example(example.prompt, example.own, False) for example in trainee.examples]
    recall = recalling(backbone, own, [], settings.recalled_gib, nullcontext)
    heads = None
    if tokens.place == "end":
        prompts = [example.prompt for example in trainee.examples]
        ahead = [prompt[: insertion(backbone, prompt, tokens.place)] for prompt in prompts]
        heads = PrefixCache(backbone, ahead, settings.recalled_gib)
    loss = ControlLoss(controlled, trainee.examples, everything, recall, settings.divergence_weight, heads)

    def mounted_loss(rows: list[int], step: list[int]) -> Tensor:
        table = torch.cat([parameters.get(name, fixed[name]) for name in tokens.categories])
        with embedded(backbone, table):
            return loss(rows, step)

    plan = plan_of(trainee.tasks, settings, seed, processes)
    held = list(range(len(flat), len(everything)))

    def measure() -> float:
        size = 2 * settings.batch
        parts = [held[start : start + size] for start in range(0, len(held), size)]
        return sum(float(mounted_loss(part, held)) for part in parts)

    stopping = Stopping(measure, settings.validate_every, settings.patience) if held else None
    end = train(parameters, mounted_loss, plan, checkpoint, stopping, advance)
    found = {name: one.detach().to("cpu", torch.float32).clone() for name, one in parameters.items()}
    return found, end


def plan_of(
    tasks: Sequence[Sequence[TokenTask]], settings: TokenTraining, seed: int, processes: ProcessGroup = ALONE
) -> CyclingPlan:
    """The steps that go through every task so many times, positives and negatives as they are many."""
    starts = [0]
    for pool in tasks:
        starts.append(starts[-1] + len(pool))
    pools = [list(range(start, start + len(pool))) for start, pool in zip(starts, tasks, strict=False)]
    shares = []
    for taught, kept in zip(tasks[::2], tasks[1::2], strict=True):
        share = round(settings.batch * len(taught) / (len(taught) + len(kept)))
        share = min(max(share, 1), settings.batch - bool(kept))
        shares += [share, settings.batch - share if kept else 0]
    steps = max(1, round(settings.epochs * starts[-1] / settings.batch))
    return CyclingPlan(
        steps, settings.learning_rate, pools, shares, seed, parts=settings.accumulation, processes=processes
    )


__all__ = [
    "ControlLoss",
    "CyclingPlan",
    "TokenExample",
    "TokenTrainee",
    "TokenTraining",
    "plan_of",
    "train_tokens",
]
