"""Laws of training: it teaches, ends where it should, and resumes to the bit."""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette import threads
from palette.adapters.mounting import mounted
from palette.backbones import batches
from palette.files import read_tensors, write_tensors
from palette.internalise import loop
from palette.internalise.loop import FALLING, WINDOW, Plan, Stopping
from palette.internalise.losses import LossWeights
from tests.internalise.conftest import WEAK, loss_of, trained


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


def test_a_checkpoint_without_losses_is_begun_anew(backbone, examples, tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, path, stop_at=5)
    tensors, card = read_tensors(path)
    write_tensors(path, tensors, {key: value for key, value in card.items() if key != "losses"})
    _, _, calls = trained(backbone, examples, path)
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


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 5))
def test_parts_hold_examples_of_like_length_and_as_little_padding_as_may_be(lengths, count):
    plan = Plan(1, 1e-2, [range(len(lengths))], [len(lengths)], seed=0, lengths=lengths)
    parts = plan.split(range(len(lengths)), count)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    assert len(parts) <= count
    ordered = [lengths[row] for part in parts for row in part]
    assert ordered == sorted(lengths, reverse=True)

    def fullest(cuts):
        ends = [0, *cuts, len(ordered)]
        return max((b - a) * ordered[a] for a, b in pairwise(ends) if a < b)

    every = combinations_with_replacement(range(len(ordered) + 1), count - 1)
    assert max(len(part) * lengths[part[0]] for part in parts) == min(map(fullest, every))


def test_the_rate_warms_up_and_falls_to_zero():
    plan = Plan(100, 1.0, [[0]], [1], seed=0, warmup=10)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 90)


def test_the_rate_stays_until_the_loss_falls_no_longer_fast():
    plan = Plan(200, 1.0, [[0]], [1], seed=0, warmup=10, decay=60)
    fast, slow = [FALLING - 0.05] * 4, [FALLING + 0.05] * 4
    for ratios, falls in ((slow, 2), (fast[:1] + slow, 3), (fast[:3] + slow, 5), (fast + fast, 7)):
        losses = [1.0] * WINDOW
        for ratio in ratios:
            losses += [losses[-1] * ratio] * WINDOW
        assert plan.falls(losses) == falls * WINDOW
        assert plan.end(losses) == falls * WINDOW + 60
        rates = [plan.rate(step, losses) for step in range(plan.end(losses))]
        assert rates[9 : falls * WINDOW + 1] == [1.0] * (falls * WINDOW - 8)
        assert rates[falls * WINDOW :] == sorted(rates[falls * WINDOW :], reverse=True)
        assert rates[-1] == pytest.approx(1 / 60)
        # What was decided stands, whatever comes.
        assert all(plan.end(losses[:end]) == plan.end(losses) for end in range(falls * WINDOW, len(losses)))


@given(st.lists(st.floats(0.01, 100), max_size=300), st.integers(1, 300), st.integers(0, 300))
def test_training_is_never_longer_than_its_steps(losses, steps, decay):
    plan = Plan(steps, 1.0, [[0]], [1], seed=0, decay=min(decay, steps))
    assert 0 <= plan.falls(losses) <= plan.end(losses) <= steps or steps < plan.warmup
    assert all(0 < plan.rate(step, losses) <= 1.0 for step in range(plan.end(losses)))


def test_a_training_that_ends_early_resumes_to_the_bit(backbone, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "WINDOW", 1)
    monkeypatch.setattr(loop, "FALLING", 0.0)
    whole, last, calls = trained(backbone, examples, tmp_path / "whole", steps=20, decay=3)
    assert (last.step, len(calls)) == (5, 5)
    with pytest.raises(KeyboardInterrupt):
        trained(backbone, examples, tmp_path / "cut", steps=20, decay=3, stop_at=4)
    resumed, again, _ = trained(backbone, examples, tmp_path / "cut", steps=20, decay=3)
    assert (again.step, again.losses, resumed.digest) == (last.step, last.losses, whole.digest)


def test_parts_on_twins_add_up_to_the_whole_whatever_the_cores(backbone, examples, tmp_path, monkeypatch):
    whole, last, _ = trained(backbone, examples, tmp_path / "whole")
    found = {}
    for cores in (1, 2):
        monkeypatch.setattr(threads, "_cores", lambda cores=cores: cores)
        path = tmp_path / f"on{cores}"
        found[cores], end, calls = trained(backbone, examples, path, lanes=2, parts=2)
        assert len(calls) == 2 * last.step
        assert end.loss == pytest.approx(last.loss, rel=1e-4)
    assert found[1].digest == found[2].digest, "the same bytes, whatever the machine"
    for name, module in whole.modules.items():
        assert torch.allclose(found[2].modules[name].delta(), module.delta(), atol=1e-4)
    assert not backbone.model._forward_hooks
