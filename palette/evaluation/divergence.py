"""How far a changed model's next-token distributions are from the backbone's, in nats."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palette.shapes import Float, Tensor

Logits = Float[Tensor, "_token vocabulary"]


def kl(base: Float[Tensor, "*token vocabulary"], changed: Float[Tensor, "*token vocabulary"]) -> Tensor:
    """KL(base ‖ changed) at each token, in nats."""
    p, q = base.double().log_softmax(-1), changed.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def divergence(base: Sequence[Logits], changed: Sequence[Logits]) -> dict[str, float]:
    """Mean KL(base ‖ changed) in nats: of the first token, and over all tokens of the replies.

    Both are teacher-forced on the backbone's own replies, so the second is a true multi-token KL a
    token, not a comparison of different texts.
    """
    each = [kl(b, c) for b, c in zip(base, changed, strict=True)]
    first = torch.stack([row[0] for row in each if len(row)])
    return {"first_token": float(first.mean()), "multi_token": float(torch.cat(each).mean())}
