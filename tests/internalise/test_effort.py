"""What a model is worth: all that was asked where it is small, and what fits into a stated time where not."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.backbones.placement import pass_seconds
from palette.internalise.effort import (
    FEWEST,
    FEWEST_ROWS,
    FEWEST_STEPS,
    LEAST_TRIED,
    MOST,
    PASSES,
    SELF,
    TEACHING,
    TRAINING,
    TRIED,
    affordable,
    teaching,
    tried,
)
from palette.internalise.examples import SHARES, Example

ROWS = sum(SHARES.values())
EXAMPLES = [Example((1,) * 40, (2,) * 20, taught=False)]
POOLS = dict.fromkeys(SHARES, (0,))
SIZES = st.integers(5, 11).map(lambda power: 10**power)


def backbone(weights, device="cpu", dtype=torch.float32):
    """A model of so many weights, of which only the number, the device and the precision are read."""
    parameters = [SimpleNamespace(numel=lambda: weights)]
    model = SimpleNamespace(parameters=lambda: parameters, device=torch.device(device), dtype=dtype)
    return SimpleNamespace(model=model)


def test_a_small_model_is_taught_with_all_that_was_asked():
    assert affordable(backbone(2_000_000), EXAMPLES, POOLS, 200) == (200, SHARES)
    count, more = teaching(backbone(2_000_000), [[1] * 40] * 240, 48)
    assert count == MOST
    assert more > 240


@given(SIZES, st.integers(1, 400))
def test_what_is_done_fits_into_the_time_or_is_the_least(weights, asked):
    steps, shares = affordable(backbone(weights), EXAMPLES, POOLS, asked)
    assert min(asked, FEWEST_STEPS) <= steps <= asked
    assert all(1 <= shares[name] <= SHARES[name] for name in SHARES)
    seconds = PASSES * pass_seconds(backbone(weights)) * 60 * steps * sum(shares.values())
    least = steps == min(asked, FEWEST_STEPS) and sum(shares.values()) <= FEWEST_ROWS + len(SHARES)
    # Each share is a whole number of rows.
    assert least or seconds <= TRAINING * (1 + len(SHARES) / sum(shares.values()))


@given(SIZES)
def test_more_weights_never_give_more(weights):
    one, ten = (affordable(backbone(each), EXAMPLES, POOLS, 200) for each in (weights, 10 * weights))
    assert ten[0] <= one[0]
    assert all(ten[1][name] <= one[1][name] for name in SHARES)
    prompts = [[1] * 40] * 100
    assert teaching(backbone(10 * weights), prompts, 48)[0] <= teaching(backbone(weights), prompts, 48)[0]


@given(SIZES, st.integers(1, 300))
def test_teachers_fit_into_their_time_or_are_the_fewest(weights, prompts):
    count, more = teaching(backbone(weights), [[1] * 40] * prompts, 48)
    assert FEWEST <= count <= MOST
    assert more >= 0
    seconds = pass_seconds(backbone(weights)) * 88 * (count + SELF) ** 2 * (prompts + more)
    assert seconds <= TEACHING * 1.001 or (count == FEWEST and more == 0)


@given(SIZES)
def test_fewer_trials_are_tried_as_teachers_where_a_reply_takes_long(weights):
    prompts = [[1] * 40] * 32
    assert LEAST_TRIED <= tried(backbone(10 * weights), prompts, 48) <= tried(backbone(weights), prompts, 48)
    assert tried(backbone(1_000_000), prompts, 48) == TRIED


def test_an_empty_pool_takes_no_row_from_the_others():
    alone = {"target": (0,), "preserve": (0,)}
    _, every = affordable(backbone(135_000_000), EXAMPLES, POOLS, 200)
    _, few = affordable(backbone(135_000_000), EXAMPLES, alone, 200)
    assert few["target"] > every["target"]
