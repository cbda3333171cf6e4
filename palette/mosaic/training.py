"""Control tokens trained over subsets of categories (MOSAIC, arXiv 2603.16210); the backbone stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence

from palette.backbones import batches
from palette.backbones.prefixes import PrefixCache
from palette.backbones.scoring import Batch, forward
from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.internalise.examples import Example, Recall, recalling
from palette.internalise.loop import Checkpoint, Plan, State, Stopping
from palette.internalise.loop import train as train_parameters
from palette.mosaic.examples import Sampling, TokenExample, TokenExamples, TokenTask
from palette.mosaic.mounting import Controlled, embedded, insertion
from palette.mosaic.settings import PLAN, TokenPlan, TrainSettings
from palette.mosaic.tokens import TOKENS_FILE, ControlTokens, identity, initial, write_tokens
from palette.run import Run
from palette.shapes import Tensor

TOKEN_CHECKPOINT = Path("train") / "checkpoint.safetensors"
TOKEN_RECORD = Path("train") / "training.json"
CHECKPOINT_EVERY = 50
"""Steps between two checkpoints: seconds on the organism."""

IGNORED = -100
"""The label of a position that no loss is taken of."""


@dataclass(frozen=True)
class CyclingPlan(Plan):
    """A plan whose steps go round the orders: each takes its batch of one order's two pools alone."""

    @classmethod
    def of(
        cls, tasks: Sequence[Sequence[TokenTask]], size: int, learning_rate: float, seed: int, **more: Any
    ) -> CyclingPlan:
        """The steps of so many tasks that meet each once, positives and negatives as they are many."""
        ends = list(accumulate(map(len, tasks)))
        pools = [range(end - len(pool), end) for end, pool in zip(ends, tasks, strict=True)]
        shares = []
        for taught, kept in zip(tasks[::2], tasks[1::2], strict=True):
            share = round(size * len(taught) / (len(taught) + len(kept)))
            share = min(max(share, 1), size - bool(kept))
            shares += [share, size - share if kept else 0]
        return cls(max(1, round(ends[-1] / size)), learning_rate, pools, shares, seed, **more)

    def batch(self, step: int) -> list[int]:
        """The tasks of one step: a function of the seed and the step alone."""
        turn, place = divmod(step, len(self.pools) // 2)
        chosen = slice(2 * place, 2 * place + 2)
        pools, shares, seed = self.pools[chosen], self.shares[chosen], self.seed + place
        return Plan(self.steps, self.learning_rate, pools, shares, seed).batch(turn)


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
    ahead: PrefixCache | None = None
    """What stands before the tokens, where that is most of a prompt."""

    @cached_property
    def replies(self) -> list[tuple[int, ...]]:
        """What is to be said in each task."""
        pairs = [(self.examples[task.row], task.taught) for task in self.tasks]
        return [example.taught if taught else example.own for example, taught in pairs]

    def __call__(self, rows: Sequence[int], step: Sequence[int]) -> Tensor:
        """What ``rows`` add to the loss of the step that they are part of."""
        counts = {True: 0, False: 0}
        for row in step:
            counts[self.tasks[row].taught] += len(self.replies[row])
        loss = torch.zeros((), device=self.controlled.model.device)
        sequences = [self._sequence(row) for row in rows]
        for batch in batches(sequences, self.controlled.pad, self.controlled.model.device):
            taught, kept, moved = self._terms(batch, [rows[index] for index in batch.rows])
            loss = loss + taught / max(1, counts[True]) + (kept + self.weight * moved) / max(1, counts[False])
        return loss

    def _terms(self, batch: Batch, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The sums over a batch: cross-entropy of positives, of negatives, and the KL of these."""
        replies, tasks = [self.replies[row] for row in rows], [self.tasks[row] for row in rows]
        longest = max(map(len, replies))
        cache, mask = (
            self.ahead.cache([task.row for task in tasks]) if self.ahead is not None else (None, None)
        )
        logits = forward(self.controlled, batch, longest + 1, cache, mask)[:, :-1].float()
        said = [torch.tensor(reply, dtype=torch.long) for reply in replies]
        labels = pad_sequence(said, batch_first=True, padding_value=IGNORED, padding_side="left")
        labels = labels.to(logits.device)
        losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        sums = losses.view(labels.shape).sum(1)
        positive = torch.tensor([task.taught for task in tasks], device=logits.device)
        quiet = [line for line, task in enumerate(tasks) if not task.taught]
        moved = logits.new_zeros(())
        if quiet and self.weight:
            known = self.recall([tasks[line].row for line in quiet])
            base = torch.stack([pad(own.logits, (0, 0, longest - len(own.logits), 0)) for own in known])
            log_p, log_q = base.log_softmax(-1), logits[quiet].log_softmax(-1)
            # What is padded has no label, and no part in the sum.
            moved = ((log_p.exp() * (log_p - log_q)).sum(-1) * (labels[quiet] != IGNORED)).sum()
        return sums[positive].sum(), sums[~positive].sum(), moved

    def _sequence(self, row: int) -> list[int]:
        """The prompt under its subset with its reply, without what is kept of it."""
        task = self.tasks[row]
        prompt = self.examples[task.row].prompt
        kept = 0 if self.ahead is None else insertion(self.controlled, prompt, self.controlled.tokens.place)
        return [*self.controlled.prefixed(prompt, task.active)[kept:], *self.replies[row]]


@dataclass(frozen=True)
class TokenTraining:
    """Trains control tokens in a run's folder: how, and on which examples."""

    run: Run
    settings: TrainSettings
    examples: TokenExamples
    plan: TokenPlan = PLAN

    def train(self, card: dict[str, Any]) -> ControlTokens:
        """Tokens of every category, also written as ``control_tokens.safetensors`` in the run's folder.

        With ``plan.joint`` off each category is trained for itself, which does not compose.
        """
        categories, backbone = self.run.authorisation.domains, self.run.backbone
        fresh = initial(backbone, categories, self.settings.slots, self.run.seed)
        tokens = ControlTokens(fresh, identity(backbone), self.examples.sign, self.settings.place, card)
        groups = [categories] if self.plan.joint else [(category,) for category in categories]
        ends = {}
        for group in groups:
            tokens, ends[",".join(group)] = self.trained(tokens, self._sampling(group))
        self._write(tokens, ends)
        return tokens

    def add(self, tokens: ControlTokens, category: str) -> ControlTokens:
        """The tokens with those of one category added, also written; all others stay to the bit.

        Trained are the subsets that hold the new category (arXiv 2603.16210, incremental addition).
        """
        tokens = tokens.with_categories(initial(self.run.backbone, [category], tokens.slots, self.run.seed))
        tokens, end = self.trained(tokens, self._sampling(tokens.categories, category))
        self._write(tokens, {category: end})
        return tokens

    def _sampling(self, categories: tuple[str, ...], added: str | None = None) -> Sampling:
        return Sampling(categories, self.settings.orders, self.plan.positives, self.plan.negatives, added)

    def trained(self, tokens: ControlTokens, sampling: Sampling) -> tuple[ControlTokens, State]:
        """The tokens with those of the sampling's categories trained, in float32, and where that ended."""
        run, settings, plan, examples = self.run, self.settings, self.plan, self.examples
        names = sampling.categories if sampling.added is None else (sampling.added,)
        pools = examples.tasks(sampling, settings.epochs, run.seed)
        held = examples.held(sampling, run.recipe.at_most(plan.validation_prompts), run.seed)
        tasks = [*(task for pool in pools for task in pool), *held]
        schedule = CyclingPlan.of(
            pools, plan.batch, settings.learning_rate, run.seed, processes=run.processes
        )
        fixed = {name: e.to(run.backbone.model.device) for name, e in tokens.embeddings.items()}
        parameters = {name: nn.Parameter(fixed[name].clone()) for name in sorted(names)}
        loss = self._loss(tokens, tasks)

        def mounted_loss(rows: list[int], step: list[int]) -> Tensor:
            table = torch.cat([parameters.get(name, fixed[name]) for name in tokens.categories])
            with embedded(run.backbone, table):
                return loss(rows, step)

        def measure() -> float:
            rows = list(range(len(tasks) - len(held), len(tasks)))
            parts = [rows[start : start + 2 * plan.batch] for start in range(0, len(rows), 2 * plan.batch)]
            return sum(float(mounted_loss(part, rows)) for part in parts)

        stopping = Stopping(measure, settings.validate_every, plan.patience)
        checkpoint = Checkpoint(
            run.folder / TOKEN_CHECKPOINT, self._identity(tokens, names, tasks), CHECKPOINT_EVERY
        )
        with run.progress("tokens", schedule.steps) as advance:
            end = train_parameters(parameters, [mounted_loss], schedule, checkpoint, stopping, advance)
        return tokens.with_categories({name: e.detach().cpu() for name, e in parameters.items()}), end

    def _loss(self, tokens: ControlTokens, tasks: Sequence[TokenTask]) -> ControlLoss:
        backbone, examples, room = self.run.backbone, self.examples.examples, self.run.recipe.memory_gib
        own = [Example(example.prompt, example.own, False) for example in examples]
        ahead = None
        if tokens.place == "end":
            before = [e.prompt[: insertion(backbone, e.prompt, tokens.place)] for e in examples]
            ahead = PrefixCache(backbone, before, room)
        recall, weight = recalling(backbone, own, [], room), self.plan.divergence_weight
        return ControlLoss(Controlled.of(backbone, tokens), examples, tasks, recall, weight, ahead)

    def _identity(self, tokens: ControlTokens, names: Sequence[str], tasks: Sequence[TokenTask]) -> str:
        """The fingerprint of all that decides a byte of what is trained."""
        return fingerprint(
            [
                [tokens.digest, tokens.backbone.fingerprint, list(names), self.run.seed],
                [[task.active, task.row, task.taught] for task in tasks],
                [[example.prompt, example.own, example.taught] for example in self.examples.examples],
                [self.settings.model_dump(mode="json"), asdict(self.plan)],
            ]
        )

    def _write(self, tokens: ControlTokens, ends: dict[str, State]) -> None:
        if not self.run.processes.first:
            return
        trained = {
            group: {"steps": end.step, "last_loss": end.loss, "validation_loss": end.best}
            for group, end in ends.items()
        }
        record = {"trained": trained, "parameters": tokens.table.numel(), "distance": tokens.norms}
        write_json(self.run.folder / TOKEN_RECORD, {**self.examples.record, **record})
        write_tokens(self.run.folder / TOKENS_FILE, tokens)
