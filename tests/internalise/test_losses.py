"""Laws of the loss: nothing to pay at the backbone, margins in nats, the sum of what examples add."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from palette.adapters.mounting import mounted
from palette.backbones import greedy_replies
from palette.internalise.examples import REPLY_TOKENS, Reference, recalling, references
from palette.internalise.lora import trainable
from palette.internalise.losses import LossWeights, OutputLoss
from palette.internalise.token_losses import log_odds
from tests.internalise.conftest import SITES, WEAK, loss_of, trained

EXACT = {"log_odds_margin": 0.0}


def test_kept_examples_cost_nothing_at_the_backbone(backbone, examples):
    assert float(loss_of(backbone, examples, [1, 2], LossWeights(**EXACT))) == pytest.approx(0, abs=1e-6)
    # But for the surety that their first words are to gain: its weight by the nats squared.
    weights = LossWeights(decision=0.5, log_odds_margin=2.0)
    assert float(loss_of(backbone, examples, [1, 2], weights)) == pytest.approx(2.0, rel=1e-4)


def test_only_the_floor_of_the_authorised_domains_is_to_be_surer(backbone, examples):
    weights = LossWeights(decision=0.5, floor_margin=3.0, **EXACT)
    for floor, near, nats in ((True, True, 3.0), (True, False, 0.0), (False, True, 0.0)):
        kept = [examples[0], replace(examples[1], floor=floor, near=near), examples[2]]
        # The mean of two kept examples' squared nats, by its weight.
        assert float(loss_of(backbone, kept, [1, 2], weights)) == pytest.approx(0.25 * nats**2, abs=1e-4)


def test_a_taught_opening_is_to_have_a_margin(backbone, examples):
    alone = loss_of(backbone, examples, [0], LossWeights(decision=0.0))
    word = examples[0].reply[0]
    base = references(backbone, examples[:1], SITES)[0].logits[0]
    assert int(base.argmax()) != word
    odds = -float(torch.logit(base.double().softmax(-1).max()))
    for margin in (0.0, 9.0):
        weights = LossWeights(decision=0.5, opening_margin=margin)
        found = float(loss_of(backbone, examples, [0], weights) - alone)
        assert found == pytest.approx(0.5 * max(0.0, margin - odds) ** 2, rel=1e-3)


def test_a_taught_opening_keeps_its_distance_from_refusals_and_not_from_other_answers(backbone, examples):
    # Of twenty words two refuse: what is measured are the odds that neither is said, whatever else is.
    example = replace(examples[0], refusing=(3, 4))
    own = torch.zeros(len(example.reply), 20)
    own[:, 3] = 1.0
    known = [Reference(own, torch.empty(0, 0, 8))]
    weights = LossWeights(opening_margin=5.0)
    loss = OutputLoss(backbone, backbone, examples, lambda rows: [], SITES, weights)
    for nats in (0.0, 4.0):
        said = torch.zeros(1, 20)
        said[0, [3, 4]] -= nats
        found = loss.lacking([example], known, known, said)
        assert float(found) == pytest.approx(5 - nats - log(18 / 2), abs=1e-4) if nats == 0 else found < 0.1
    said = torch.zeros(1, 20)
    said[0, 5:] = -30.0
    said[0, [3, 4]] = -9.0
    # A word of another answer is as good as the taught one.
    said[0, (example.reply[0] + 7) % 15 + 5] = 9.0
    assert float(loss.lacking([example], known, known, said)) == 0


@pytest.mark.parametrize("nats", [-1.5, 2.0])
@pytest.mark.parametrize("place", [0, 1])
def test_decisive_words_are_held_on_both_sides(backbone, examples, nats, place):
    # A reference moved by so many nats of log-odds; the backbone is then as far from it.
    known = references(backbone, examples, SITES)
    moved = known[1].logits.clone()
    moved[place, examples[1].reply[place]] += nats
    known[1] = replace(known[1], logits=moved)
    examples = [replace(each, decisive=place) for each in examples]

    def recall(rows):
        return [known[row] for row in rows]

    weights = LossWeights(divergence=0.0, identity=0.0, decision=1.0, **EXACT)
    loss = OutputLoss(backbone, backbone, examples, recall, SITES, weights)
    assert float(loss([1], [1])) == pytest.approx(nats**2, rel=1e-3)


def test_beside_another_adapter_its_changes_are_kept(backbone, examples, tmp_path):
    other, _, _ = trained(backbone, examples, tmp_path / "o.safetensors", steps=6, weights=WEAK)
    bare = backbone.twin()
    with trainable(backbone, sorted(other.modules), rank=2, seed=1):
        recall = recalling(bare, examples, SITES, 1.0)
        weights = LossWeights(**EXACT, decision=0.0)
        loss = OutputLoss(backbone, bare, examples, recall, SITES, weights, [other], seed=1)
        drawn = [replace(loss, seed=seed).mounted_in([1, 2]) for seed in range(20)]
        assert [] in drawn
        together = replace(loss, seed=drawn.index([other]))
        # An untrained student beside the other changes nothing that is kept, so it costs nothing.
        assert float(together([1, 2], [1, 2]).detach()) == pytest.approx(0, abs=1e-6)
        assert float(together([0], [0]).detach()) > 1


@pytest.mark.parametrize(
    ("role", "together", "lacking"),
    [
        ({}, 1.0, 0.0),  # Surer beside others: their own affair.
        ({}, -0.5, 0.5),  # Less sure, not opened: to be made good.
        ({}, -9.0, 0.0),  # Opened by them: it stays open.
        ({"floor": True}, -9.0, 9.0),  # The floor is opened by nobody.
        ({"floor": True, "near": True}, 9.0, 2.0),  # Its own floor has a margin over the backbone.
        ({"refused": True}, 0.0, 3.0),  # Frail: it is to be as sure as its margin.
        ({"refused": True}, -9.0, 0.0),  # A frail refusal that others open stays open too.
        ({"taught": True}, 0.0, 0.0),  # Surer than its margin is sure enough.
    ],
)
def test_what_first_words_lack_beside_others(backbone, examples, role, together, lacking):
    # The word has 2 nats before the only other word of any weight, and the student says it as the others do.
    word = examples[1].reply[0]
    bare = torch.full((20,), -99.0)
    bare[word], bare[word - 1] = 2.0, 0.0
    co_mounted_now = bare.clone()
    co_mounted_now[word] += together
    example = replace(examples[1], **role)
    weights = LossWeights(opening_margin=1.0, floor_margin=2.0, refusal_log_odds=5.0, **EXACT)
    loss = OutputLoss(backbone, backbone, examples, lambda rows: [], SITES, weights)
    said = bare if together == 9.0 else co_mounted_now
    alone, others = (
        [Reference(logits.unsqueeze(0), torch.empty(0, 0, 8))] for logits in (bare, co_mounted_now)
    )
    found = loss.lacking([example], alone, others, said.unsqueeze(0))
    assert float(found) == pytest.approx(lacking, abs=1e-4)


@pytest.mark.parametrize(("bare", "lacking"), [(0.5, 2.5), (3.5, 0.0), (-0.5, 0.0)])
def test_a_frail_refusal_is_made_surer_and_a_crossed_prompt_that_is_answered_is_not(
    backbone, examples, bare, lacking
):
    logits = torch.full((1, 20), -99.0)
    example = replace(examples[1], refused=True)
    logits[0, example.reply[0]], logits[0, example.reply[0] - 1] = bare, 0.0
    loss = OutputLoss(
        backbone, backbone, examples, lambda rows: [], SITES, LossWeights(refusal_log_odds=3.0, **EXACT)
    )
    known = [Reference(logits, torch.empty(0, 0, 8))]
    assert float(loss.lacking([example], known, known, logits)) == pytest.approx(lacking, abs=1e-4)


def test_what_is_refused_by_mistake_is_to_be_refused_no_surer(backbone, examples):
    weights = LossWeights(decision=0.5, log_odds_margin=1.0, refusal_log_odds=40.0)
    for benign, nats in ((True, 0.0), (False, 1.0)):
        kept = [examples[0], replace(examples[1], refused=True, benign=benign), examples[2]]
        found = float(loss_of(backbone, kept, [1], weights))
        assert found == pytest.approx(0, abs=1e-5) if benign else found > 0.4 * nats


def test_the_loss_is_what_each_example_adds_by_itself(backbone, examples, tmp_path):
    near = replace(examples[1], reply=examples[1].reply[:2], floor=True, near=True)
    mixed, rows = [*examples, near], [0, 1, 2, 3]
    adapter, _, _ = trained(backbone, examples, tmp_path / "a", weights=WEAK)
    weights, known = LossWeights(), references(backbone, mixed, SITES)
    with mounted(backbone.model, adapter):
        loss = OutputLoss(
            backbone, backbone, mixed, lambda rows: [known[row] for row in rows], SITES, weights
        )
        found = float(loss(rows, rows))
        said = references(backbone, mixed, SITES)
    tokens = {kind: sum(len(e.reply) for e in mixed if e.taught == kind) for kind in (True, False)}
    expected = 0.0
    for example, base, own in zip(mixed, known, said, strict=True):
        p, q = base.logits.log_softmax(-1), own.logits.log_softmax(-1)
        each = (p.exp() * (p - q)).sum(-1)
        odds, before = (float(torch.logit(log[0].exp().double()[example.reply[0]])) for log in (q, p))
        lacking = before + weights.log_odds_margin - odds
        if example.taught:
            for place, token in enumerate(example.reply):
                own_word = int(p[place].argmax()) == token
                costs = float(each[place] if own_word else -q[place, token])
                expected += costs / tokens[True] + (weights.opening * costs if place == 0 else 0)
            own_first = torch.logit(q[0].exp().double()[int(p[0].argmax())])
            lacking = max(0.0, weights.opening_margin + float(own_first))
        else:
            words = p.argmax(-1, keepdim=True) == torch.arange(p.shape[-1])
            each = each + weights.odds * (log_odds(q, words) - log_odds(p, words)).square()
            expected += weights.divergence * (float(each.sum()) / tokens[False] + float(each[0]) / 3)
            moved = (own.streams - base.streams).square().sum(-1) / base.streams.square().sum(-1)
            expected += weights.identity * float(moved.mean()) / 3
            if example.near:
                lacking = max(0.0, before + weights.floor_margin - odds)
        expected += weights.decision * lacking**2 / 4
    assert found == pytest.approx(expected, rel=1e-3)


def test_what_an_opening_costs_does_not_depend_on_how_long_the_reply_is(backbone, examples):
    longer = replace(examples[0], reply=(*examples[0].reply[:-1], *examples[0].reply))
    costs = []
    for example in (examples[0], longer):
        with_it, without = (
            float(loss_of(backbone, [example], [0], LossWeights(opening=weight))) for weight in (1.0, 0.0)
        )
        costs.append(with_it - without)
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)
    assert costs[0] > 1


def test_what_a_reply_goes_on_with_makes_none_of_what_decides_it_count_less(backbone, examples):
    start = (examples[0].reply[0],) * REPLY_TOKENS
    rest = greedy_replies(backbone, [[*examples[0].prompt, *start]], 12)[0]
    assert rest
    short, longer = (replace(examples[0], reply=reply) for reply in (start, (*start, *rest)))
    costs = [float(loss_of(backbone, [example], [0], LossWeights())) for example in (short, longer)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)
    assert costs[0] > 1


def test_taught_examples_cost_something_until_they_are_said(backbone, examples):
    assert float(loss_of(backbone, examples, [0], LossWeights())) > 1
