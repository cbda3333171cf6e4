"""Laws of training: it starts at the backbone, resumes to the bit, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.mounting import mounted
from palette.backbones import batches
from palette.organism.language import Size, build_model, build_tokenizer
from palette.organism.world import create_world, small
from palette.training import Example, LossWeights, Plan, batch_loss, references, train
from palette.training.lora import lora_layers, lora_parameters, read_out, trainable

SITES = [1, 2]


@pytest.fixture(scope="module")
def backbone():
    from palette.backbones import Backbone

    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "0" * 64)


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
    chosen = [examples[row] for row in rows]
    known = references(backbone, chosen, SITES)
    (batch,) = batches([e.ids for e in chosen], backbone.pad, torch.device("cpu"), 1 << 20)
    return batch_loss(backbone, batch, chosen, known, SITES, weights)


def trained(backbone, examples, checkpoint, steps=6, stop_at=None, identity="x"):
    plan = Plan(steps, 1e-2, [[0], [1, 2]], [1, 2], seed=1, warmup=1, every=2)
    layers = lora_layers(backbone, [0, 1])
    calls = []

    def loss(rows):
        calls.append(rows)
        if stop_at is not None and len(calls) > stop_at:
            raise KeyboardInterrupt
        return loss_of(backbone, examples, rows, LossWeights())

    with trainable(backbone, layers, rank=2, alpha=4, seed=1) as model:
        last = train(lora_parameters(model), loss, plan, checkpoint, identity)
        return read_out(model, backbone, layers), last, calls


def test_kept_examples_cost_nothing_at_the_backbone(backbone, examples):
    assert float(loss_of(backbone, examples, [1, 2], LossWeights())) == pytest.approx(0, abs=1e-6)


def test_taught_examples_cost_something_until_they_are_said(backbone, examples):
    assert float(loss_of(backbone, examples, [0], LossWeights())) > 1


def test_training_teaches_and_reads_out_what_it_taught(backbone, examples, tmp_path):
    before = float(loss_of(backbone, examples, [0], LossWeights()))
    adapter, _, _ = trained(backbone, examples, tmp_path / "c.safetensors", steps=40)
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
    assert again == last
    for name, module in whole.modules.items():
        assert torch.equal(module.lora_A, resumed.modules[name].lora_A)
        assert torch.equal(module.lora_B, resumed.modules[name].lora_B)


def test_a_checkpoint_of_another_training_is_ignored(backbone, examples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, tmp_path / "c.safetensors", stop_at=5)
    _, _, calls = trained(backbone, examples, tmp_path / "c.safetensors", identity="y")
    assert len(calls) == 6


def test_the_backbone_is_left_as_it_was_even_after_an_error(backbone, examples):
    ids = torch.tensor([examples[0].ids])
    before = backbone.model(ids).logits
    names = [name for name, _ in backbone.model.named_modules()]
    with (
        pytest.raises(RuntimeError, match="stop"),
        trainable(backbone, lora_layers(backbone, [0]), rank=2, alpha=4, seed=0),
    ):
        raise RuntimeError("stop")
    assert torch.equal(backbone.model(ids).logits, before)
    assert [name for name, _ in backbone.model.named_modules()] == names
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_a_new_adapter_is_the_backbone(backbone, examples):
    ids = torch.tensor([examples[0].ids])
    before = backbone.model(ids).logits
    with trainable(backbone, lora_layers(backbone, [0]), rank=2, alpha=4, seed=0):
        assert torch.equal(backbone.model(ids).logits, before)


def test_layers_are_the_linears_of_the_blocks(backbone):
    layers = lora_layers(backbone, [2])
    assert len(layers) == 7
    assert all(name.startswith("model.layers.2.") for name in layers)


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
