from __future__ import annotations

import pytest
import torch
from torch import nn

from palette.activations import captured, skipped


def test_skipped_blocks_give_what_is_known_and_are_themselves_again_after_an_error():
    blocks = [nn.Linear(4, 4) for _ in range(3)]
    model = nn.Sequential(*blocks)
    x, known = torch.randn(2, 1, 4), torch.ones(2, 1, 4)
    before = model(x)
    with skipped(blocks, 2, known):
        assert torch.equal(model(x), blocks[2](known))
        assert torch.equal(blocks[0](x), known)
    with pytest.raises(RuntimeError), skipped(blocks, 3, known):
        raise RuntimeError
    assert torch.equal(model(x), before)


def test_hooks_see_what_a_skipped_block_gives():
    blocks = [nn.Linear(4, 4) for _ in range(2)]
    seen = {}
    known = torch.ones(1, 1, 4)
    with captured(blocks, seen.__setitem__), skipped(blocks, 2, known):
        nn.Sequential(*blocks)(torch.zeros(1, 1, 4))
    assert torch.equal(seen[2], known)


def test_without_a_stream_nothing_is_skipped():
    block = nn.Linear(4, 4)
    x = torch.randn(1, 1, 4)
    before = block(x)
    with skipped([block], 1, None):
        assert torch.equal(block(x), before)
