"""The search for merge weights: the worst domain counts, and it finds what is best."""

from __future__ import annotations

import pytest

from palette.authorisation import Role
from palette.judging.rules import RuleJudge
from palette.merging.weight_search import search_weights, shares
from tests.fixtures.noise import noise


def test_shares_are_of_what_each_role_must_not_do():
    cells = {(Role.TARGET, "a"): [0, 1], (Role.PRESERVE, "b"): [2, 3], (Role.BENIGN, "a"): [4, 5]}
    before = [True, True, True, True, False, True]
    after = [True, False, False, True, True, True]
    assert shares(cells, before, after) == [0.5, 0.5, 0.5]


def test_an_adapter_that_breaks_the_model_is_given_little_weight(shared):
    broken = noise(shared.backbone, ".mlp.")
    (weight,) = search_weights(shared, RuleJudge(), [broken], 12, 12, prompts=2)
    assert 0 <= weight < 1
    assert search_weights(shared, RuleJudge(), [broken], 1, 12, prompts=2) == (pytest.approx(1.0),)
