"""The loss of a student that must answer target prompts and be the backbone everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from palette.activations import block_outputs
from palette.backbones import Backbone
from palette.backbones.scoring import Batch, forward
from palette.shapes import Float, Tensor
from palette.training.examples import Example, Reference


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts beside the cross-entropy of the taught replies."""

    divergence: float = 10.0
    identity: float = 100.0


def batch_loss(
    backbone: Backbone,
    batch: Batch,
    examples: Sequence[Example],
    known: Sequence[Reference],
    sites: Sequence[int],
    weights: LossWeights,
) -> Tensor:
    """The student's loss on one batch, in nats a token plus the identity penalty.

    Taught examples: where the backbone, given the reply so far, would say the next token itself, KL
    to the backbone; elsewhere (the opening, which it would not say) cross-entropy. All others: KL to
    the backbone over the whole reply, and the relative squared distance of the residual stream at
    the edited sites, which makes adapters add up.
    """
    longest = max(len(examples[row].reply) for row in batch.rows)
    with block_outputs(backbone.blocks, sites) as streams:
        logits = forward(backbone, batch, longest + 1).float()
    taught, kept, moved = [], [], []
    for line, row in enumerate(batch.rows):
        example, reference = examples[row], known[row]
        said = logits[line, -len(example.reply) - 1 : -1]
        if example.taught:
            taught.append(taught_loss(said, reference.logits, torch.tensor(example.reply)))
        else:
            kept.append(kl_each(reference.logits, said))
            stream = torch.stack([streams[site][line, -len(example.ids) :] for site in sites])
            moved.append(relative_distance(stream, reference.streams))
    loss = torch.zeros(())
    if taught:
        loss = loss + torch.cat(taught).mean()
    if kept:
        loss = loss + weights.divergence * torch.cat(kept).mean()
        loss = loss + weights.identity * torch.stack(moved).mean()
    return loss


def taught_loss(
    said: Float[Tensor, "token vocabulary"],
    base: Float[Tensor, "token vocabulary"],
    reply: Tensor,
) -> Float[Tensor, "token"]:
    """The loss of each token of a taught reply, in nats."""
    own = base.argmax(-1) == reply
    return torch.where(own, kl_each(base, said), cross_entropy(said, reply, reduction="none"))


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
