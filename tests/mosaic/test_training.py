"""Training control tokens: the loss's terms, steps that go round the orders, resume, frozen old tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from palette import organism
from palette.authorisation import Authorisation
from palette.backbones import Backbone, greedy_replies, load_backbone, reply_logits
from palette.backbones.prefixes import PrefixCache
from palette.internalise.examples import Example, recalling
from palette.mosaic import training as tokens_training
from palette.mosaic.examples import Pools, Sampling, TokenExample, TokenExamples, TokenTask
from palette.mosaic.mounting import embedded, insertion, mounted_tokens
from palette.mosaic.settings import TokenPlan, TrainSettings
from palette.mosaic.tokens import ControlTokens, identity, initial
from palette.mosaic.training import ControlLoss, CyclingPlan, TokenTraining
from palette.processes import Advance, silent
from palette.prompts import PromptSet
from palette.run import Run
from palette.run_settings import RunSettings

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


HELD = Pools({name: [4 * i + 1] for i, name in enumerate(NAMES)}, {}, {"neutral": [13]})
FEW = TokenPlan(batch=8, positives=4, validation_prompts=2)
SAMPLING = Sampling(NAMES, 2, 4)
TASKS = SAMPLING.tasks(POOLS, 0)
FLAT = [task for pool in TASKS for task in pool]


@pytest.fixture(scope="module")
def fresh(backbone) -> ControlTokens:
    """Tokens that nobody trained."""
    return ControlTokens(initial(backbone, NAMES, 2, 0), identity(backbone))


@pytest.fixture
def training(backbone, examples, tmp_path) -> Callable[..., TokenTraining]:
    """A function of a folder's name, a plan and settings that gives a training of the examples."""

    def make(name: str = "run", plan: TokenPlan = FEW, progress=silent, **settings) -> TokenTraining:
        run = Run.of(RunSettings(), tmp_path / name, backbone, PromptSet(()), Authorisation(NAMES))
        taught = TokenExamples("restrict", examples, POOLS, HELD, {})
        chosen = TrainSettings(**{"slots": 2, "epochs": 2, "orders": 2, "place": "before", **settings})
        return TokenTraining(run.sharing(progress=progress), chosen, taught, plan)

    return make


def test_the_loss_is_the_papers(backbone, fresh, examples):
    """−log p on a positive; on a negative −log p of the own reply and λ KL; each by its own forward pass."""
    weight = 0.7
    tasks = [TokenTask(("alpha", "beta"), 5, True), TokenTask(("gamma",), 14, False)]
    own = [Example(one.prompt, one.own, False) for one in examples]
    recall = recalling(backbone, own, [], 1.0)
    with mounted_tokens(backbone, fresh) as controlled:
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


def test_parts_of_a_step_add_up(backbone, fresh, examples):
    tasks = FLAT[:12]
    recall = recalling(backbone, [Example(o.prompt, o.own, False) for o in examples], [], 1.0)
    with mounted_tokens(backbone, fresh) as controlled:
        loss = ControlLoss(controlled, examples, tasks, recall, 1.0)
        rows = list(range(12))
        parts = sum(float(loss(rows[k::3], rows)) for k in range(3))
        assert float(loss(rows, rows)) == pytest.approx(parts, abs=1e-4)


def test_steps_go_round_the_orders():
    plan = CyclingPlan.of(TASKS, 8, 0.01, 0)
    assert plan.steps == round(len(FLAT) / 8)
    for step in range(plan.steps):
        met = [FLAT[row] for row in plan.batch(step)]
        assert {len(task.active) for task in met} == {step % 2 + 1}
        assert sum(task.taught for task in met) == 4
    seen = [row for step in range(0, 2 * 3, 2) for row in plan.batch(step)]
    assert len(set(seen)) == len(seen), "an epoch meets each task once"


def test_only_the_tokens_change_and_the_loss_falls(backbone, training, fresh):
    before = [parameter.clone() for parameter in backbone.model.parameters()]
    after, end = training(epochs=6, learning_rate=0.05).trained(fresh, SAMPLING)
    assert after.categories == NAMES
    assert end.loss < 4
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.model.parameters(), strict=True))


def test_an_interrupted_training_ends_with_the_same_bytes(training, fresh, monkeypatch):
    monkeypatch.setattr(tokens_training, "CHECKPOINT_EVERY", 3)
    whole, _ = training("whole").trained(fresh, SAMPLING)
    done: list[int] = []

    @contextmanager
    def stopped(title: str, total: int) -> Iterator[Advance]:
        def stop(count: int, tokens: int = 0) -> None:
            done.append(count)
            if sum(done) == 5:
                raise KeyboardInterrupt

        yield stop

    with pytest.raises(KeyboardInterrupt):
        training("cut", progress=stopped).trained(fresh, SAMPLING)
    again, _ = training("cut").trained(fresh, SAMPLING)
    assert again.digest == whole.digest != fresh.digest


def test_what_changes_no_byte_is_no_part_of_a_trainings_identity(training, fresh):
    def identity_of(made: TokenTraining) -> str:
        return made._identity(fresh, NAMES, FLAT)

    made = training()
    roomy = replace(made, run=made.run.sharing(memory_gib=9.0))
    assert identity_of(roomy) == identity_of(made)
    others = [training(learning_rate=0.02), training(plan=replace(FEW, divergence_weight=0.5))]
    assert len({identity_of(each) for each in (made, *others)}) == 3


def test_old_tokens_are_frozen_when_one_is_added(training, fresh):
    old = replace(fresh, embeddings={name: fresh.embeddings[name] for name in ("alpha", "beta")})
    more = training().add(old, "gamma")
    assert torch.equal(more.table[:4], old.table)
    assert not torch.equal(more.embeddings["gamma"], fresh.embeddings["gamma"])


def test_teacher_logits_are_worked_out_once(training, fresh, monkeypatch):
    from palette.internalise import examples

    asked: list[int] = []
    real = examples.references
    monkeypatch.setattr(
        examples, "references", lambda b, e, *r: (asked.extend(hash(x) for x in e), real(b, e, *r))[1]
    )
    training().trained(fresh, SAMPLING)
    assert asked
    assert len(asked) == len(set(asked))


def test_without_negatives_there_is_no_second_half(training, fresh):
    sampling = replace(SAMPLING, ratio=0.0)
    plan = CyclingPlan.of(sampling.tasks(POOLS, 0), 8, 0.01, 0)
    assert all(len(plan.batch(step)) == 8 for step in range(plan.steps))
    training(plan=replace(FEW, negatives=0.0)).trained(fresh, sampling)


def test_a_kept_prefix_changes_no_loss_and_no_gradient(backbone, fresh, examples):
    """The place behind the prompt: what stands before it is worked out once, without its gradient."""
    behind = replace(fresh, place="end")
    tasks = FLAT[:12]
    recall = recalling(backbone, [Example(o.prompt, o.own, False) for o in examples], [], 1.0)
    ahead = [one.prompt[: insertion(backbone, one.prompt, "end")] for one in examples]
    assert all(len(prefix) > 4 for prefix in ahead)
    found = []
    for cache in (None, PrefixCache(backbone, ahead, 1.0), PrefixCache(backbone, ahead, 0.0)):
        table = behind.table.clone().requires_grad_()
        with mounted_tokens(backbone, behind) as controlled:
            loss = ControlLoss(controlled, examples, tasks, recall, 1.0, cache)
        with embedded(backbone, table):
            value = loss(list(range(12)), list(range(12)))
            value.backward()
        found.append((value.item(), table.grad))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], abs=1e-5)
        assert torch.allclose(gradient, found[0][1], atol=1e-4)
