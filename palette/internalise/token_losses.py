"""What each token of a reply costs: cross-entropy, divergence from the backbone, and log-odds that move."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from palette.shapes import Bool, Float, Int, Tensor

BLOCK = 1 << 20
"""Probabilities that are worked out at once."""


class TokenLoss(Function):
    """The loss of each token, in nats, in blocks of rows: the vocabulary is held once, as the gradient.

    Cross-entropy −log q(w) where a word w ≥ 0 is given, KL(p ‖ q) where it is −1; p is the backbone's, q the
    student's. With both the gradient of q's logits is q less what it should be: the word, or p. Beside it, as
    much as is ``held``, Δ², what the log-odds of the backbone's word v have moved; its gradient is 2 Δ for v,
    and for all others −2 Δ q / (1 − q(v)), their share of what is not v.
    """

    @staticmethod
    def forward(ctx: Any, said: Tensor, base: Tensor, words: Tensor, held: Tensor) -> Tensor:
        """The losses [token]; ``said`` and ``base`` are logits [token, vocabulary] of any precision."""
        losses = torch.empty(len(said), device=said.device)
        gradient = torch.empty_like(said) if ctx.needs_input_grad[0] else None
        size = max(1, BLOCK // max(1, said.shape[-1]))
        for rows in (slice(start, start + size) for start in range(0, len(said), size)):
            q, p = said[rows].float().log_softmax(-1), base[rows].float().log_softmax(-1)
            word, given = words[rows].clamp(min=0).unsqueeze(-1), words[rows] >= 0
            wanted = p.exp()
            kl = (wanted * (p - q)).sum(-1)
            own = torch.zeros_like(wanted, dtype=torch.bool).scatter_(-1, p.argmax(-1, keepdim=True), True)
            moved, weight = log_odds(q, own) - log_odds(p, own), held[rows]
            losses[rows] = torch.where(given, -q.gather(-1, word).squeeze(-1), kl) + weight * moved.square()
            if gradient is not None:
                one = torch.zeros_like(wanted).scatter_(-1, word, 1.0)
                among_others = q.masked_fill(own, float("-inf")).softmax(-1)
                drawn = (2 * weight * moved).unsqueeze(-1) * (own.float() - among_others)
                gradient[rows] = q.exp() - torch.where(given.unsqueeze(-1), one, wanted) + drawn
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the student's logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].unsqueeze(-1).to(gradient.dtype), None, None, None


def token_losses(
    said: Float[Tensor, "token vocabulary"],
    base: Float[Tensor, "token vocabulary"],
    reply: Int[Tensor, "token"],
    taught: Bool[Tensor, "token"],
    odds: float = 0.0,
) -> Float[Tensor, "token"]:
    """The loss of each token of replies, in nats.

    KL(base ‖ said); of taught ones that the backbone would not say itself, their cross-entropy. Of kept ones
    also ``odds`` times the squared nats by which the log-odds of what the backbone would say have moved.
    """
    words = torch.where(taught & (base.argmax(-1) != reply), reply, -1)
    losses: Tensor = TokenLoss.apply(said, base, words, odds * ~taught)  # type: ignore[no-untyped-call]
    return losses


def log_odds(
    logits: Float[Tensor, "row vocabulary"], words: Bool[Tensor, "row vocabulary"]
) -> Float[Tensor, "row"]:
    """The log-odds that one of a row's words is said, in nats."""
    inside, others = (logits.masked_fill(left_out, float("-inf")) for left_out in (~words, words))
    return inside.logsumexp(-1) - others.logsumexp(-1)
