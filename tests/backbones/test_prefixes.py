"""What is read once and gone on from changes no logit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.backbones import Backbone, batches
from palette.backbones.prefixes import Memo, PrefixCache, continued, read_prefix, shared_prefix, widened
from palette.backbones.scoring import forward, held_by, padded
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "0" * 64)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=6), st.integers(1, 5))
def test_a_prefix_is_shared_by_all_and_ends_before_the_last_token(sequences, least):
    prefix = shared_prefix(sequences, least)
    assert all(tuple(each[: len(prefix)]) == prefix and len(each) > len(prefix) for each in sequences)
    assert not prefix or len(prefix) >= least
    longer = {tuple(each[: len(prefix) + 1]) for each in sequences}
    if len(prefix) >= least and len(longer) == 1:
        assert min(map(len, sequences)) == len(prefix) + 1, "a longer prefix is shared"


def test_a_prefix_shorter_than_it_must_be_is_none():
    assert shared_prefix([[1, 2, 3, 4, 5, 6]], 4) == (1, 2, 3, 4, 5)
    assert shared_prefix([[1, 2, 3], [1, 2, 3]], 4) == ()
    assert shared_prefix([], 1) == ()


def test_every_row_is_widened_to_as_many_beside_it():
    known = [(torch.arange(12.0).view(2, 1, 3, 2), torch.zeros(2, 1, 3, 2))]
    (pair,) = held_by(widened(known, 3))
    assert torch.equal(pair[0], known[0][0].repeat_interleave(3, 0))


def test_rows_that_go_on_from_a_prefix_are_what_they_are_whole(backbone):
    prefix, ends = [5, 7, 9, 11], [[13, 15], [17], [19, 21, 23]]
    batch = padded(ends, range(3), backbone.pad, CPU)
    found = continued(backbone, batch, 1, read_prefix(backbone, prefix))[:, -1]
    whole = padded([[*prefix, *end] for end in ends], range(3), backbone.pad, CPU)
    assert torch.allclose(found, continued(backbone, whole, 1, None)[:, -1], atol=1e-5)


@pytest.mark.parametrize("most", [1.0, 0.0])
def test_a_prefix_of_each_rows_own_changes_no_logit(backbone, most):
    ahead, ends = [[5, 7, 9], [11], [13, 15]], [[17, 19], [21, 23], [25, 27]]
    kept = PrefixCache(backbone, ahead, most)
    for rows in ([2, 0], [0, 1, 2], [1, 1]):
        cache, mask = kept.cache(rows)
        found = forward(
            backbone, padded([ends[row] for row in rows], range(len(rows)), 0, CPU), 1, cache, mask
        )
        for line, row in enumerate(rows):
            (alone,) = batches([[*ahead[row], *ends[row]]], backbone.pad, CPU)
            assert torch.allclose(found[line], forward(backbone, alone, 1)[0], atol=1e-5)


def test_what_fits_is_worked_out_once_and_all_else_again():
    asked: list[list[int]] = []

    def work(rows: list[int]) -> list[str]:
        asked.append(rows)
        return [str(row) for row in rows]

    memo = Memo(work, lambda value: 2**30, 2.0)
    assert memo([3, 1, 3]) == ["3", "1", "3"]
    assert memo([2, 1]) == ["2", "1"]
    assert memo([2, 3]) == ["2", "3"]
    assert asked == [[1, 3], [2], [2]]
