"""What the backbone does by itself is worked out once, and costs no byte of the result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.backbones import shared as count_shared
from palette.backbones.cache import common_start
from palette.internalise.examples import Example, decided, recalling
from palette.internalise.lora import lora_layers, lora_parameters, trainable
from palette.internalise.losses import LossWeights, OutputLoss
from tests.internalise.conftest import SITES, trained


def test_what_all_prompts_begin_with_is_run_once_and_changes_nothing(backbone, examples):
    system = tuple(backbone.tokenizer("what is the dose and the clause ? tell me ." * 2)["input_ids"])
    begun = [replace(one, prompt=(*system, *one.prompt)) for one in examples]
    begun.append(replace(begun[1], prompt=(*system, *examples[2].prompt[:4])))
    head = common_start(backbone, [one.prompt for one in begun])
    assert head[: len(system)] == system
    assert len(head) < min(len(one.prompt) for one in begun)
    assert common_start(backbone, [one.prompt for one in examples]) == () == common_start(backbone, [])
    rows, found, bare = [0, 1, 2, 3], [], backbone.twin()
    with trainable(backbone, lora_layers(backbone, [0, 1]), rank=2, seed=1) as model:
        parameters = lora_parameters(model)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.1)
        for shared in ((), head):
            recall = recalling(bare, begun, SITES, 1.0, shared)
            loss = OutputLoss(backbone, bare, begun, recall, SITES, LossWeights(), shared=shared)(rows, rows)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            found.append((loss.detach(), *gradients, *(one.streams for one in recall(rows))))
    for plain, once in zip(*found, strict=True):
        assert torch.allclose(once, plain, rtol=1e-3, atol=1e-5)


def test_outputs_that_are_not_kept_are_worked_out_again(backbone, examples, tmp_path):
    kept, end, _ = trained(backbone, examples, tmp_path / "a", steps=3)
    again, other, _ = trained(backbone, examples, tmp_path / "b", steps=3, most=0.0)
    assert other.loss == pytest.approx(end.loss, rel=1e-5)
    for name, module in kept.modules.items():
        assert torch.allclose(module.lora_B, again.modules[name].lora_B, atol=1e-5)


def test_shared_counts_what_all_begin_with():
    assert count_shared([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert count_shared([[1], [2]]) == 0


REPLIES = st.lists(st.lists(st.integers(10, 14), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8)


def of(reply, refused=False):
    return Example((1, 2), tuple(reply), False, refused)


@given(REPLIES, REPLIES, st.lists(st.integers(20, 22), max_size=4).map(tuple))
def test_the_decisive_place_is_behind_what_answers_and_refusals_both_begin_with(answers, refusals, shared):
    # Answers say 30 where refusals say 31, behind a sentence of both.
    pool = [of((*shared, 30, *each)) for each in answers]
    pool += [of((*shared, 31, *each), refused=True) for each in refusals]
    (found,) = decided({"benign": pool})
    assert {each.decisive for each in found["benign"]} == {len(shared)}
    assert all(each.refusing == (31,) for each in found["benign"] if not each.refused)
    assert [replace(each, decisive=0, refusing=()) for each in found["benign"]] == pool


def test_a_first_word_that_few_answers_share_is_passed_over_for_what_none_says():
    answers = [of((1, 5, i)) for i in range(3)] + [of((2, 5, i)) for i in range(7)]
    refusals = [of((1, 9, i % 2), refused=True) for i in range(6)]
    (found,) = decided({"preserve": answers + refusals})
    assert [each.decisive for each in found["preserve"]] == [1] * 3 + [0] * 7 + [1] * 6


def test_what_refuses_at_an_answers_decisive_place_are_words_that_refusals_say_oftener_there():
    answers = [of((1, 5)), of((1, 6)), of((3, 5)), of((3, 6))]
    refusals = [of((1, 9), refused=True), of((1, 8), refused=True), of((2, 4), refused=True)]
    # One refusal begins as answers do: its first word refuses nothing, its second does.
    messy = of((3, 7), refused=True)
    (found,) = decided({"benign": answers + refusals, "floor": [messy]})
    assert [(each.decisive, each.refusing) for each in found["benign"][:4]] == [(1, (8, 9))] * 2 + [
        (1, (7,))
    ] * 2
    assert all(each.refusing == () for each in (*found["benign"][4:], *found["floor"]))


def test_places_are_decided_over_all_pools_and_splits_and_are_first_where_nothing_is_refused():
    held = {"floor": [of((7, 8), refused=True)]}
    alone, both = decided({"benign": [of((7, 9))]}), decided({"benign": [of((7, 9))]}, held)
    assert alone[0]["benign"][0].decisive == 0
    assert [both[0]["benign"][0].decisive, both[1]["floor"][0].decisive] == [1, 1]
