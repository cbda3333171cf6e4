"""Laws of training: it starts at the backbone, resumes to the bit, and leaves no trace."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.mounting import mounted
from palette.backbones import batches
from palette.internalise.examples import Example, Reference, recalling, references, shared_tokens
from palette.internalise.loop import Checkpoint, Plan, Stopping, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable, untrained
from palette.internalise.losses import LossWeights, OutputLoss, log_odds

SITES = [1, 2]
WEAK = LossWeights(divergence=0.1, identity=0.1)


@pytest.fixture(scope="module")
def examples(backbone):
    def example(prompt: str, reply: str, taught: bool) -> Example:
        ids = backbone.tokenizer(reply, add_special_tokens=False)["input_ids"]
        rendered = backbone.render([{"role": "user", "content": prompt}])
        return Example(tuple(rendered), (*ids, backbone.stops[0]), taught)

    return [
        example("what is the dose ?", "the dose is two drams .", True),
        example("tell me the clause .", "i am sorry .", False),
        example("what is 3 plus 4 ?", "3 plus 4 is 7 .", False),
    ]


def loss_of(backbone, examples, rows, weights):
    recall = recalling(backbone, examples, SITES, 1.0, nullcontext)
    return OutputLoss(backbone, examples, recall, SITES, weights)(rows, rows)


def trained(backbone, examples, path, steps=6, stop_at=None, identity="x", **options):
    plan = Plan(steps, 1e-2, [[0], [1, 2]], [1, 2], seed=1, warmup=1, parts=options.get("parts", 1))
    stopping, weights = options.get("stopping"), options.get("weights")
    layers = lora_layers(backbone, [0, 1])
    most = options.get("most", 1.0)
    recall = recalling(backbone, examples, SITES, most, lambda: untrained(backbone))
    whole = OutputLoss(backbone, examples, recall, SITES, weights or LossWeights())
    calls = []

    def loss(rows, step):
        calls.append(rows)
        if stop_at is not None and len(calls) > stop_at:
            raise KeyboardInterrupt
        return whole(rows, step)

    with trainable(backbone, layers, rank=2, seed=1) as model:
        end = train(lora_parameters(model), loss, plan, Checkpoint(path, identity, 2), stopping)
        return read_out(model, backbone, layers), end, calls


def test_what_all_prompts_begin_with_is_run_once_and_changes_nothing(backbone, examples):
    system = tuple(backbone.tokenizer("what is the dose and the clause ? tell me ." * 2)["input_ids"])
    begun = [replace(one, prompt=(*system, *one.prompt)) for one in examples]
    begun.append(replace(begun[1], prompt=(*system, *examples[2].prompt[:4])))
    head = shared_tokens(backbone, begun)
    assert head[: len(system)] == system
    assert len(head) < min(len(one.prompt) for one in begun)
    assert shared_tokens(backbone, examples) == () == shared_tokens(backbone, [])
    rows, found = [0, 1, 2, 3], []
    with trainable(backbone, lora_layers(backbone, [0, 1]), rank=2, seed=1) as model:
        parameters = lora_parameters(model)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.1)
        for shared in ((), head):
            bare = partial(untrained, backbone)
            recall = recalling(backbone, begun, SITES, 1.0, bare, shared)
            loss = OutputLoss(backbone, begun, recall, SITES, LossWeights(), shared=shared)(rows, rows)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            found.append((loss.detach(), *gradients, *(one.streams for one in recall(rows))))
    for plain, once in zip(*found, strict=True):
        assert torch.allclose(once, plain, rtol=1e-3, atol=1e-5)


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
    odds = float(base[word] - base[[i for i in range(len(base)) if i != word]].logsumexp(0))
    for margin in (0.0, 2.0):
        weights = LossWeights(decision=0.5, opening_margin=margin)
        found = float(loss_of(backbone, examples, [0], weights) - alone)
        assert found == pytest.approx(0.5 * max(0.0, margin - odds) ** 2, rel=1e-3)


@pytest.mark.parametrize("nats", [-1.5, 2.0])
def test_first_words_are_held_on_both_sides(backbone, examples, nats):
    # A reference moved by so many nats of log-odds; the backbone is then as far from it.
    known = references(backbone, examples, SITES)
    moved = known[1].logits.clone()
    moved[0, examples[1].reply[0]] += nats
    known[1] = replace(known[1], logits=moved)

    def recall(rows):
        return [known[row] for row in rows]

    weights = LossWeights(divergence=0.0, identity=0.0, decision=1.0, **EXACT)
    loss = OutputLoss(backbone, examples, recall, SITES, weights)
    assert float(loss([1], [1])) == pytest.approx(nats**2, rel=1e-3)


def test_beside_another_adapter_its_changes_are_kept(backbone, examples, tmp_path):
    other, _, _ = trained(backbone, examples, tmp_path / "o.safetensors", steps=6, weights=WEAK)
    with trainable(backbone, sorted(other.modules), rank=2, seed=1):
        recall = recalling(backbone, examples, SITES, 1.0, lambda: untrained(backbone))
        weights = LossWeights(**EXACT, decision=0.0)
        loss = OutputLoss(backbone, examples, recall, SITES, weights, [other], seed=1)
        drawn = [replace(loss, seed=seed).mounted_in([1, 2]) for seed in range(20)]
        assert [] in drawn
        together = replace(loss, seed=drawn.index([other]))
        # An untrained student beside the other changes nothing that is kept, so it costs nothing.
        assert float(together([1, 2], [1, 2]).detach()) == pytest.approx(0, abs=1e-6)
        assert float(together([0], [0]).detach()) > 1


@pytest.mark.parametrize(
    ("role", "beside", "lacking"),
    [
        ({}, 1.0, 0.0),  # Surer beside others: their own affair.
        ({}, -0.5, 0.5),  # Less sure, not opened: to be made good.
        ({}, -9.0, 0.0),  # Opened by them: it stays open.
        ({"floor": True}, -9.0, 9.0),  # The floor is opened by nobody.
        ({"floor": True, "near": True}, 9.0, 2.0),  # Its own floor has a margin over the backbone.
        ({"taught": True}, 0.0, 0.0),  # Surer than its margin is sure enough.
    ],
)
def test_what_first_words_lack_beside_others(backbone, examples, role, beside, lacking):
    # The word has 2 nats before the only other word of any weight, and the student says it as the others do.
    word = examples[1].reply[0]
    bare = torch.full((20,), -99.0)
    bare[word], bare[word - 1] = 2.0, 0.0
    co_mounted_now = bare.clone()
    co_mounted_now[word] += beside
    example = replace(examples[1], **role)
    weights = LossWeights(opening_margin=1.0, floor_margin=2.0, **EXACT)
    loss = OutputLoss(backbone, examples, lambda rows: [], SITES, weights)
    said = bare if beside == 9.0 else co_mounted_now
    alone, others = (
        [Reference(logits.unsqueeze(0), torch.empty(0, 0, 8))] for logits in (bare, co_mounted_now)
    )
    found = loss.lacking([example], alone, others, said.unsqueeze(0))
    assert float(found) == pytest.approx(lacking, abs=1e-4)


def test_the_loss_is_what_each_example_adds_by_itself(backbone, examples, tmp_path):
    near = replace(examples[1], reply=examples[1].reply[:2], floor=True, near=True)
    mixed, rows = [*examples, near], [0, 1, 2, 3]
    adapter, _, _ = trained(backbone, examples, tmp_path / "a", weights=WEAK)
    weights, known = LossWeights(), references(backbone, mixed, SITES)
    with mounted(backbone.model, adapter):
        loss = OutputLoss(backbone, mixed, lambda rows: [known[row] for row in rows], SITES, weights)
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
                expected += float(each[place] if own_word else -q[place, token]) / tokens[True]
            lacking = max(0.0, weights.opening_margin - odds)
        else:
            expected += weights.divergence * float(each.sum()) / tokens[False]
            moved = (own.streams - base.streams).square().sum(-1) / base.streams.square().sum(-1)
            expected += weights.identity * float(moved.mean()) / 3
            if example.near:
                lacking = max(0.0, before + weights.floor_margin - odds)
        expected += weights.decision * lacking**2 / 4
    assert found == pytest.approx(expected, rel=1e-3)


def test_taught_examples_cost_something_until_they_are_said(backbone, examples):
    assert float(loss_of(backbone, examples, [0], LossWeights())) > 1


def test_training_teaches_and_reads_out_what_it_taught(backbone, examples, tmp_path):
    before = float(loss_of(backbone, examples, [0], LossWeights()))
    adapter, _, _ = trained(backbone, examples, tmp_path / "c.safetensors", steps=40, weights=WEAK)
    with mounted(backbone.model, adapter):
        chosen = [examples[0]]
        (batch,) = batches([chosen[0].ids], backbone.pad, torch.device("cpu"))
        logits = backbone.model(batch.ids).logits[0, -len(chosen[0].reply) - 1 : -1]
    said = logits.log_softmax(-1).gather(-1, torch.tensor(chosen[0].reply).unsqueeze(-1))
    assert float(-said.mean()) < before - 0.1


def test_training_resumes_to_the_bit(backbone, examples, tmp_path):
    whole, last, _ = trained(backbone, examples, tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, tmp_path / "cut.safetensors", stop_at=5)
    resumed, again, calls = trained(backbone, examples, tmp_path / "cut.safetensors")
    assert len(calls) == 2, "a checkpoint is written after every second step"
    assert (again.step, again.loss) == (last.step, last.loss)
    assert resumed.digest == whole.digest


def measured(values, patience=2):
    """A stopping rule that measures what it is told."""
    given = iter(values)
    return Stopping(lambda: next(given), every=1, patience=patience)


def test_training_ends_when_the_validation_loss_rises_and_gives_its_lowest(backbone, examples, tmp_path):
    best, end, calls = trained(backbone, examples, tmp_path / "a", stopping=measured([3.0, 1.0, 2.0, 2.0]))
    assert (len(calls), end.step, end.best) == (4, 4, 1.0)
    other, _, _ = trained(backbone, examples, tmp_path / "b", stopping=measured([3.0, 1.0, 9.0, 9.0]))
    assert other.digest == best.digest
    last, _, _ = trained(backbone, examples, tmp_path / "c", stopping=measured([3.0, 2.0, 1.0, 2.0, 2.0]))
    assert last.digest != best.digest


def test_the_lowest_weights_survive_an_interruption(backbone, examples, tmp_path):
    values = [3.0, 1.0, 2.0, 2.5, 2.5, 2.5]
    whole, _, _ = trained(backbone, examples, tmp_path / "whole", stopping=measured(values, patience=9))
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, tmp_path / "cut", stop_at=5, stopping=measured(values, patience=9))
    resumed, end, _ = trained(backbone, examples, tmp_path / "cut", stopping=measured(values[4:], patience=9))
    assert (resumed.digest, end.best, end.stale) == (whole.digest, 1.0, 4)


def test_outputs_that_are_not_kept_are_worked_out_again(backbone, examples, tmp_path):
    kept, end, _ = trained(backbone, examples, tmp_path / "a", steps=3)
    again, other, _ = trained(backbone, examples, tmp_path / "b", steps=3, most=0.0)
    assert other.loss == pytest.approx(end.loss, rel=1e-5)
    for name, module in kept.modules.items():
        assert torch.allclose(module.lora_B, again.modules[name].lora_B, atol=1e-5)


def test_a_batch_in_parts_gives_the_same_gradient(backbone, examples, tmp_path):
    whole, end, _ = trained(backbone, examples, tmp_path / "a", steps=3)
    parts, again, calls = trained(backbone, examples, tmp_path / "b", steps=3, parts=2)
    assert len(calls) == 6
    assert again.loss == pytest.approx(end.loss, rel=1e-5)
    for name, module in whole.modules.items():
        assert torch.allclose(module.lora_A, parts.modules[name].lora_A, atol=1e-5)
        assert torch.allclose(module.lora_B, parts.modules[name].lora_B, atol=1e-5)


def test_a_checkpoint_of_another_training_is_ignored(backbone, examples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, tmp_path / "c.safetensors", stop_at=5)
    _, _, calls = trained(backbone, examples, tmp_path / "c.safetensors", identity="y")
    assert len(calls) == 6


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(0, 5))
def test_every_batch_has_its_shares_and_every_epoch_all_examples(sizes, share):
    starts = [sum(sizes[:i]) for i in range(3)]
    pools = [list(range(a, a + n)) for a, n in zip(starts, sizes, strict=True)]
    plan = Plan(20, 1e-3, pools, [share] * 3, seed=2)
    seen: list[int] = []
    for step in range(20):
        batch = plan.batch(step)
        assert len(batch) == sum(share for size in sizes if size)
        assert batch == plan.batch(step)
        seen += batch
    for pool in pools:
        counts = [seen.count(i) for i in pool]
        assert not counts or max(counts) - min(counts) <= 1


def test_the_rate_warms_up_and_falls_to_zero():
    plan = Plan(100, 1.0, [[0]], [1], seed=0, warmup=10)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 90)


@given(seed=st.integers(0, 99))
def test_log_odds_are_those_of_the_probabilities(seed):
    known = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    labels = torch.tensor([[0, 1, 2], [6, 5, 4]])
    shares = known.exp().gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(log_odds(known, labels), torch.logit(shares), atol=1e-4)
