"""The loss of a student that must answer target prompts and be the backbone everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from palette.activations import block_outputs
from palette.backbones import Backbone, batches
from palette.backbones.scoring import Batch, forward
from palette.settings import Settings
from palette.shapes import Float, Tensor
from palette.training.examples import Example, Recall, Reference
from palette.training.lora import strengthened


class LossWeights(Settings):
    """How much each term counts beside the cross-entropy of the taught replies."""

    divergence_weight: float = Field(10.0, ge=0, description="weight of the KL to the backbone (distil)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the activation identity (distil)")
    decision_weight: float = Field(0.2, ge=0, description="weight of the surety of first words (distil)")
    sureness: float = Field(1.0, ge=0, description="nats by which kept first words are to be surer (distil)")
    floor_sureness: float = Field(1.0, ge=0, description="the same on the floor (distil)")
    weakest: float = Field(
        1.0, gt=0, le=1, description="share of the adapter that must open too, for large merges (distil)"
    )
    strongest: float = Field(
        1.0, ge=1, description="times the adapter that must keep the floor too, for large merges (distil)"
    )


@dataclass(frozen=True)
class OutputLoss:
    """The student's loss on some examples of a step, in nats a token plus the identity penalty.

    Taught examples: where the backbone, given the reply so far, would say the next token itself, KL
    to the backbone; elsewhere (the opening, which it would not say) cross-entropy. All others: KL to
    the backbone over the whole reply; the relative squared distance of the residual stream at the
    edited sites, which makes adapters add up; and the squared nats by which the log-odds of the reply's
    first word lack. A divergence of probabilities hardly feels those where the backbone is
    sure, and they are what a refusal that the backbone barely gives is lost by.

    In a merge others act beside the adapter, and it must do with them what it does alone. So it can be
    trained at strengths that are not its own: every second taught example at the weakest, every second
    one of the floor at the strongest. That makes many add up, and keeps other domains less well alone.

    Each term is a mean over the whole step, so that what the parts of a step add is its loss exactly.
    """

    backbone: Backbone
    examples: Sequence[Example]
    recall: Recall
    sites: Sequence[int]
    weights: LossWeights

    def __call__(self, rows: Sequence[int], step: Sequence[int]) -> Tensor:
        """What ``rows`` add to the loss of the step that they are part of."""
        chosen, known = [self.examples[row] for row in rows], self.recall(rows)
        whole = [example.ids for example in chosen]
        others = max(1, sum(not self.examples[row].taught for row in step))
        weights, tokens = self.weights, {kind: max(1, self._tokens(step, kind)) for kind in (True, False)}
        loss = torch.zeros((), device=self.backbone.model.device)
        # Of like length, since what is padded costs as much as what is not.
        for batch in batches(whole, self.backbone.pad, self.backbone.model.device):
            strengths = [self._strength(rows[index], step) for index in batch.rows]
            with strengthened(self.backbone, strengths):
                taught, kept, unsure, moved = self._terms(batch, chosen, known)
            loss = loss + taught / tokens[True] + weights.divergence_weight * kept / tokens[False]
            loss = loss + (weights.decision_weight * unsure + weights.identity_weight * moved) / others
        return loss

    def _terms(self, batch: Batch, chosen: Sequence[Example], known: Sequence[Reference]) -> list[Tensor]:
        """The sums of a batch: taught and kept tokens' losses, what first words lack, and distances."""
        backbone = self.backbone
        longest = max(len(chosen[index].reply) for index in batch.rows)
        with block_outputs(backbone.blocks, self.sites) as streams:
            logits = forward(backbone, batch, longest + 1).float()
        taught, kept, unsure, moved = (logits.new_zeros(()) for _ in range(4))
        for line, index in enumerate(batch.rows):
            example, reference = chosen[index], known[index]
            said = logits[line, -len(example.reply) - 1 : -1]
            if example.taught:
                reply = torch.tensor(example.reply, device=said.device)
                taught = taught + taught_loss(said, reference.logits, reply).sum()
                continue
            kept = kept + kl_each(reference.logits, said).sum()
            # Of a crossed prompt too: what stands between two refused ones is to be no easier to open.
            word = example.reply[0]
            more = self.weights.floor_sureness if example.floor else self.weights.sureness
            lacking = log_odds(reference.logits[0], word) + more - log_odds(said[0], word)
            unsure = unsure + lacking.relu().square()
            stream = torch.stack([streams[site][line, -len(example.ids) :] for site in self.sites])
            moved = moved + relative_distance(stream.float(), reference.streams.float())
        return [taught, kept, unsure, moved]

    def _strength(self, row: int, step: Sequence[int]) -> float:
        """The strength at which an example of a step is trained, by its place there."""
        example = self.examples[row]
        if step.index(row) % 2 or not (example.taught or example.floor):
            return 1.0
        return self.weights.weakest if example.taught else self.weights.strongest

    def _tokens(self, step: Sequence[int], taught: bool) -> int:
        """The reply tokens of the step's taught, or of its other examples."""
        return sum(len(self.examples[row].reply) for row in step if self.examples[row].taught == taught)


def taught_loss(
    said: Float[Tensor, "token vocabulary"],
    base: Float[Tensor, "token vocabulary"],
    reply: Tensor,
) -> Float[Tensor, "token"]:
    """The loss of each token of a taught reply, in nats."""
    own = base.argmax(-1) == reply
    return torch.where(own, kl_each(base, said), cross_entropy(said, reply, reduction="none"))


def log_odds(logits: Float[Tensor, "vocabulary"], token: int) -> Tensor:
    """The log-odds of one token, in nats."""
    others = torch.cat([logits[:token], logits[token + 1 :]])
    return logits[token] - others.logsumexp(-1)


def kl_each(
    base: Float[Tensor, "token vocabulary"], said: Float[Tensor, "token vocabulary"]
) -> Float[Tensor, "token"]:
    """KL(base ‖ said) of each token, in nats, in the precision of training."""
    p, q = base.log_softmax(-1), said.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def relative_distance(
    stream: Float[Tensor, "site position d_model"], base: Float[Tensor, "site position d_model"]
) -> Tensor:
    """Mean of ‖h − h₀‖² / ‖h₀‖² over sites and positions."""
    return ((stream - base).square().sum(-1) / base.square().sum(-1).clamp(min=1e-12)).mean()
