"""Means and covariances of the residual stream, however they are fed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.backbones import Backbone
from palette.backbones.cache import WORTHWHILE, common_start
from palette.moments import StreamingMoments, WithinCovariance, last_streams
from palette.processes import unheard
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 2, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6))
def test_streaming_moments_are_the_naive_ones_however_they_are_fed(tiny, rows):
    model = tiny.model
    prompts = [[1, 5, *range(90, 91 + i), 2, 6] for i in range(6)]
    streaming = StreamingMoments(3, 2, 16)
    for start in range(0, 6, rows):
        streaming.read(tiny, prompts[start : start + rows])
    assert streaming.count == 6
    naive = torch.zeros(2, 2, 16, dtype=torch.float64)
    for prompt in prompts:
        states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        naive += torch.stack([state[0, -2:].double() for state in states[:2]]) / 6
    assert torch.allclose(streaming.means[:2], naive, atol=1e-6)


def test_covariance_streams_and_joins(tiny):
    model = tiny.model
    prompts = [[1, 5, *range(90, 91 + i), 2, 6] for i in range(6)]
    covariance = WithinCovariance(3, 2, 16)
    sets = [prompts[:2], prompts[2:]]
    halves = [
        StreamingMoments(3, 2, 16).read(tiny, part, unheard, covariance, 0.5 / len(part)) for part in sets
    ]
    found = covariance.about([half.means for half in halves])
    by_set = [
        torch.stack(
            [model(torch.tensor([p]), output_hidden_states=True).hidden_states[1][0, -2:] for p in part]
        ).double()
        for part in sets
    ]
    by_hand = sum(torch.cov(states[:, 1].T, correction=0) for states in by_set) / 2
    assert torch.allclose(found[1, 1], by_hand, atol=1e-9)
    whole = halves[0].absorb(halves[1])
    assert torch.allclose(whole.means[1], torch.cat(by_set).mean(0), atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_prompts_begin_with_is_read_once_and_changes_nothing(tiny, tokens):
    model = tiny.model
    system = [1, *range(60, 60 + 2 * WORTHWHILE)]
    # The last differs from the others in its ends alone: what is shared reaches into the tokens asked for.
    prompts = [[*system, *range(90, 91 + i), 2, 6] for i in range(4)] + [[*system, 90, 2, 7]]
    assert common_start(tiny, prompts)
    read = sum(len(batch[0]) for batch in last_streams(tiny, prompts, tokens))
    assert read == len(prompts)
    once = StreamingMoments(3, tokens, 16).read(tiny, prompts).means
    alone = torch.stack(
        [
            torch.stack(model(torch.tensor([p]), output_hidden_states=True).hidden_states[:2])[:, 0, -tokens:]
            for p in prompts
        ]
    ).double()
    assert torch.allclose(once[:2], alone.mean(0), atol=1e-6)
