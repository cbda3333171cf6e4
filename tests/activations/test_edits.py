from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from palette.activations import RankOneEdit, applied, first_block, stacked


def edit(seed: int, rows: int = 1) -> RankOneEdit:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(rows, 6, generator=generator)
    return RankOneEdit(
        direction / direction.norm(dim=-1, keepdim=True),
        torch.rand(rows, generator=generator),
        torch.rand(rows, generator=generator),
    )


@given(st.integers(1, 4), st.integers(1, 3))
def test_stacked_edits_are_each_trials_own(trials, rows):
    x = torch.randn(trials * rows, 5, 6, generator=torch.Generator().manual_seed(9))
    each = [{("stream", 1): edit(trial)} for trial in range(trials)]
    whole = stacked(each, rows)[("stream", 1)](x)
    for trial in range(trials):
        part = slice(trial * rows, (trial + 1) * rows)
        assert torch.allclose(whole[part], each[trial][("stream", 1)](x[part]), atol=1e-6)


def test_a_trial_without_an_edit_at_a_place_is_left_alone_there():
    x = torch.randn(2, 3, 6)
    both = stacked([{("stream", 1): edit(1)}, {("stream", 2): edit(2)}], 1)
    assert sorted(both) == [("stream", 1), ("stream", 2)]
    assert torch.equal(both[("stream", 1)](x)[1], x[1])
    assert torch.equal(both[("stream", 2)](x)[0], x[0])


def test_the_first_block_to_run_is_the_lowest_one_edited():
    assert first_block({("stream", 3): edit(1), ("writers", 2): edit(1)}) == 2
    assert first_block({}) == 0


def test_a_writer_is_edited_without_its_bias_as_its_weight_would_be():
    writer, r = nn.Linear(4, 6), edit(3).direction
    x = torch.randn(1, 2, 4)
    strength = torch.tensor([0.7])
    weight = writer.weight - 0.7 * r.T @ (r @ writer.weight)
    with applied([nn.Identity()], [[writer]], {("writers", 0): RankOneEdit(r, strength, torch.zeros(1))}):
        found = writer(x)
    assert torch.allclose(found, x @ weight.T + writer.bias, atol=1e-6)
    assert not writer._forward_hooks


def test_writers_that_are_not_known_cannot_be_edited():
    with (
        pytest.raises(ValueError, match="edits of writers need"),
        applied([], None, {("writers", 0): edit(1)}),
    ):
        pass
