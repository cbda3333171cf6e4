"""Training control tokens: the loss's terms, steps that go round the orders, resume, frozen old tokens."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from palette import organism
from palette.backbones import Backbone, greedy_replies, load_backbone, reply_logits
from palette.backbones.prefix_cache import PrefixCache
from palette.internalise.examples import Example, recalling
from palette.internalise.loop import Checkpoint
from palette.mosaic.mounting import embedded, identity, mounted_tokens
from palette.mosaic.places import insertion
from palette.mosaic.sampling import Pools, Sampling, TokenTask
from palette.mosaic.settings import TokenTraining
from palette.mosaic.tokens import ControlTokens, initial
from palette.mosaic.training import ControlLoss, TokenExample, TokenTrainee, plan_of, train_tokens

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(organism.weights("shared"), "organism/shared")


@pytest.fixture(scope="module")
def examples(backbone) -> list[TokenExample]:
    """Four sums for each of three categories, and four neutral ones."""
    texts = [f"what is {x} plus {y} ?" for x in range(4) for y in range(4)]
    prompts = [backbone.render([{"role": "user", "content": text}]) for text in texts]
    replies = greedy_replies(backbone, prompts, 12)
    end = backbone.stops[0]
    refusal = tuple(backbone.tokenizer("i am sorry .", add_special_tokens=False)["input_ids"])
    return [
        TokenExample(tuple(p), (*r, end), (*refusal, end) if i < 12 else ())
        for i, (p, r) in enumerate(zip(prompts, replies, strict=True))
    ]


POOLS = Pools({name: range(4 * i, 4 * i + 4) for i, name in enumerate(NAMES)}, {}, {"neutral": range(12, 16)})


@pytest.fixture(scope="module")
def trainee(backbone, examples) -> TokenTrainee:
    tokens = ControlTokens(initial(backbone, NAMES, 2, 0), identity(backbone))
    tasks = Sampling(NAMES, 2, 4).tasks(POOLS, 0)
    held = [TokenTask(("alpha",), 1, True), TokenTask(("alpha",), 13, False)]
    return TokenTrainee(backbone, tokens, NAMES, examples, tasks, held)


SETTINGS = TokenTraining(epochs=2, batch=8, validate_every=100, checkpoint_every=3)


def trained(trainee: TokenTrainee, path, settings: TokenTraining = SETTINGS):
    return train_tokens(trainee, settings, Checkpoint(path, "x", settings.checkpoint_every), 0)


def test_the_loss_is_the_papers(backbone, trainee, examples):
    """−log p on a positive; on a negative −log p of the own reply and λ KL; each by its own forward pass."""
    weight = 0.7
    tasks = [TokenTask(("alpha", "beta"), 5, True), TokenTask(("gamma",), 14, False)]
    own = [Example(one.prompt, one.own, False) for one in examples]
    recall = recalling(backbone, own, [], 1.0, nullcontext)
    with mounted_tokens(backbone, trainee.tokens) as controlled:
        found = ControlLoss(controlled, examples, tasks, recall, weight)([0, 1], [0, 1])
        taught, kept = examples[5], examples[14]
        prompts = [
            controlled.prefixed(taught.prompt, ["alpha", "beta"]),
            controlled.prefixed(kept.prompt, ["gamma"]),
        ]
        positive, negative = reply_logits(controlled, prompts, [taught.taught, kept.own])
    (base,) = reply_logits(backbone, [kept.prompt], [kept.own])
    expected = cross_entropy(positive, torch.tensor(taught.taught))
    expected += cross_entropy(negative, torch.tensor(kept.own))
    p, q = base.log_softmax(-1), negative.log_softmax(-1)
    expected += weight * (p.exp() * (p - q)).sum(-1).mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_parts_of_a_step_add_up(backbone, trainee, examples):
    tasks = [task for pool in trainee.tasks for task in pool][:12]
    recall = recalling(backbone, [Example(o.prompt, o.own, False) for o in examples], [], 1.0, nullcontext)
    with mounted_tokens(backbone, trainee.tokens) as controlled:
        loss = ControlLoss(controlled, examples, tasks, recall, 1.0)
        rows = list(range(12))
        parts = sum(float(loss(rows[k::3], rows)) for k in range(3))
        assert float(loss(rows, rows)) == pytest.approx(parts, abs=1e-4)


def test_steps_go_round_the_orders(trainee):
    plan = plan_of(trainee.tasks, SETTINGS, 0)
    flat = [task for pool in trainee.tasks for task in pool]
    assert plan.steps == round(2 * len(flat) / 8)
    for step in range(plan.steps):
        met = [flat[row] for row in plan.batch(step)]
        assert {len(task.active) for task in met} == {step % 2 + 1}
        assert sum(task.taught for task in met) == 4
    seen = [row for step in range(0, 2 * 3, 2) for row in plan.batch(step)]
    assert len(set(seen)) == len(seen), "an epoch meets each task once"


def test_only_the_tokens_change_and_the_loss_falls(backbone, trainee, tmp_path):
    before = [parameter.clone() for parameter in backbone.model.parameters()]
    found, end = trained(trainee, tmp_path / "c", TokenTraining(epochs=6, batch=8, learning_rate=0.05))
    assert sorted(found) == list(NAMES)
    assert end.loss < 4
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.model.parameters(), strict=True))


def test_an_interrupted_training_ends_with_the_same_bytes(trainee, tmp_path):
    whole, _ = trained(trainee, tmp_path / "a")

    class StoppedError(Exception):
        pass

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) == 5:
            raise StoppedError

    done: list[int] = []
    checkpoint = Checkpoint(tmp_path / "b", "x", SETTINGS.checkpoint_every)
    with pytest.raises(StoppedError):
        train_tokens(trainee, SETTINGS, checkpoint, 0, stop)
    again, _ = trained(trainee, tmp_path / "b")
    assert all(torch.equal(whole[name], again[name]) for name in NAMES)


def test_old_tokens_are_frozen_when_one_is_added(trainee, tmp_path):
    sampling = Sampling(NAMES, 2, 4, added="gamma")
    alone = replace(trainee, trained=["gamma"], tasks=sampling.tasks(POOLS, 0))
    found, _ = trained(alone, tmp_path / "c")
    assert list(found) == ["gamma"]
    assert not torch.equal(found["gamma"], trainee.tokens.embeddings["gamma"])


def test_teacher_logits_are_worked_out_once(trainee, tmp_path, monkeypatch):
    from palette.internalise import examples

    asked: list[int] = []
    real = examples.references
    monkeypatch.setattr(
        examples, "references", lambda b, e, *r: (asked.extend(hash(x) for x in e), real(b, e, *r))[1]
    )
    trained(trainee, tmp_path / "c")
    assert asked
    assert len(asked) == len(set(asked))


def test_without_negatives_there_is_no_second_half(trainee, tmp_path):
    tasks = Sampling(NAMES, 2, 4, ratio=0.0).tasks(POOLS, 0)
    plan = plan_of(tasks, SETTINGS, 0)
    assert all(len(plan.batch(step)) == 8 for step in range(plan.steps))
    trained(replace(trainee, tasks=tasks, held=()), tmp_path / "c")


def test_a_kept_head_changes_no_loss_and_no_gradient(backbone, trainee, examples):
    """The place behind the prompt: what stands before it is worked out once, without its gradient."""
    behind = replace(trainee.tokens, place="end")
    tasks = [task for pool in trainee.tasks for task in pool][:12]
    recall = recalling(backbone, [Example(o.prompt, o.own, False) for o in examples], [], 1.0, nullcontext)
    ahead = [one.prompt[: insertion(backbone, one.prompt, "end")] for one in examples]
    assert all(len(head) > 4 for head in ahead)
    found = []
    for heads in (None, PrefixCache(backbone, ahead, 1.0), PrefixCache(backbone, ahead, 0.0)):
        table = behind.table.clone().requires_grad_()
        with mounted_tokens(backbone, behind) as controlled:
            loss = ControlLoss(controlled, examples, tasks, recall, 1.0, heads)
        with embedded(backbone, table):
            value = loss(list(range(12)), list(range(12)))
            value.backward()
        found.append((value.item(), table.grad))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], abs=1e-5)
        assert torch.allclose(gradient, found[0][1], atol=1e-4)
