"""Laws of what a token costs: the same in blocks as in one piece, with its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from palette.internalise import token_losses as token_losses_module
from palette.internalise.token_losses import log_odds, token_losses


@given(seed=st.integers(0, 99))
def test_log_odds_are_those_of_the_probabilities(seed):
    draw = torch.Generator().manual_seed(seed)
    known, words = torch.randn(6, 7, generator=draw).log_softmax(-1), torch.rand(6, 7, generator=draw) < 0.4
    words[:, 0], words[:, 1] = True, False
    shares = (known.exp() * words).sum(-1)
    assert torch.allclose(log_odds(known, words), torch.logit(shares), atol=1e-4)


@given(st.integers(1, 9), st.integers(2, 30), st.integers(1, 64), st.integers(0, 99))
def test_losses_in_blocks_are_those_of_the_whole_with_their_gradient(rows, words, block, seed):
    draw = torch.Generator().manual_seed(seed)
    said, base = (3 * torch.randn(rows, words, generator=draw) for _ in range(2))
    reply, weights = torch.randint(words, (rows,), generator=draw), torch.rand(rows, generator=draw)
    said.requires_grad_(True)
    q, p = said.log_softmax(-1), base.log_softmax(-1)
    kl, ce = (p.exp() * (p - q)).sum(-1), cross_entropy(said, reply, reduction="none")
    whole = {"kept": kl, "taught": torch.where(base.argmax(-1) == reply, kl, ce)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_losses_module, "BLOCK", block)
        sides = {"kept": torch.zeros(rows, dtype=torch.bool), "taught": torch.ones(rows, dtype=torch.bool)}
        own = base.argmax(-1, keepdim=True) == torch.arange(words)
        moved = log_odds(q, own) - log_odds(p, own)
        whole["held"], sides["held"] = kl + 0.3 * moved.square(), sides["kept"]
        found = {
            name: token_losses(said, base, reply, side, 0.3 * (name != "kept"))
            for name, side in sides.items()
        }
        for name, each in found.items():
            assert torch.allclose(each, whole[name], atol=1e-5)
            gradients = [
                torch.autograd.grad((one * weights).sum(), said, retain_graph=True)[0]
                for one in (each, whole[name])
            ]
            assert torch.allclose(*gradients, atol=1e-4)
        # Logits of half precision are those very numbers, and are given a gradient of their own precision.
        half = said.detach().bfloat16().requires_grad_(True)
        exact = token_losses(half.float(), base.bfloat16().float(), reply, sides["kept"])
        found = token_losses(half, base.bfloat16(), reply, sides["kept"])
        assert torch.equal(found, exact)
        (gradient,) = torch.autograd.grad(found.sum(), half)
        assert gradient.dtype == torch.bfloat16
